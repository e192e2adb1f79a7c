//! The table of open handles: bounds, sharing, idle close, use.

use super::support::*;
use crate::kernel::limits;
use crate::store::{StoreError, Tenants, WriteMeta};
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_opens_share_one_opening() {
    let fixture = fixture();
    tenant_with_notes(&fixture, "one").await;
    assert!(fixture.tenants.close(&id("one")).await);
    let before = fixture.tenants.stats().opens;
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let tenants = Arc::clone(&fixture.tenants);
            tokio::spawn(async move { tenants.open(&id("one")).await.unwrap() })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().position(), 1);
    }
    assert_eq!(fixture.tenants.stats().opens, before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opening_that_everybody_gave_up_is_forgotten() {
    let fixture = fixture();
    tenant_with_notes(&fixture, "one").await;
    assert!(fixture.tenants.close(&id("one")).await);
    {
        let name = id("one");
        let mut opening = Box::pin(fixture.tenants.open(&name));
        let waker = std::task::Waker::noop();
        let _ = std::future::Future::poll(opening.as_mut(), &mut std::task::Context::from_waker(waker));
    }
    assert!(fixture.tenants.close(&id("one")).await);
    assert_eq!(fixture.tenants.open_len(), 0);
    assert_eq!(fixture.tenants.open(&id("one")).await.unwrap().position(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_tenant_stays_missing() {
    let fixture = fixture();
    let missing = fixture.tenants.open(&id("nobody")).await;
    assert!(matches!(missing, Err(StoreError::TenantMissing(_))));
    assert_eq!(fixture.tenants.open_len(), 0);
    assert!(!fixture.tenants.exists(&id("nobody")));
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_handles_close_and_used_ones_do_not() {
    let fixture = fixture();
    let (kept, notes) = tenant_with_notes(&fixture, "kept").await;
    tenant_with_notes(&fixture, "idle").await;
    assert_eq!(fixture.tenants.sweep().await, 0);
    fixture.clock.advance_ms(fixture.tenants.options().idle_close_ms + 1);
    // The writer thread lets go of a handle a moment after the acknowledgement.
    while fixture.tenants.sweep().await == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.tenants.open_len(), 1);
    assert!(!fixture.tenants.close(&id("kept")).await, "a handle in use");
    insert(&kept, &notes, "a", "still works").await.unwrap();
    assert!(!fixture.folder.path().join("tenants/idle/data.db-wal").exists(), "closing folds the log into the file");
}

/// 2,000 tenants with at most 64 open: nothing is lost, descriptors and handles stay bounded.
#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_tenants_share_sixty_four_handles() {
    const TENANTS: usize = 2_000;
    const OPEN: usize = 64;
    let fixture = fixture_with(|options| options.open_max = OPEN);
    tenant_with_notes(&fixture, "template").await;
    assert!(fixture.tenants.close(&id("template")).await);
    let template = fixture.tenants.path(&id("template"));
    for number in 0..TENANTS {
        let path = fixture.tenants.path(&id(&format!("t{number}")));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy(&template, path).unwrap();
    }
    let tasks: Vec<_> = (0..4)
        .map(|part| {
            let tenants = Arc::clone(&fixture.tenants);
            tokio::spawn(async move { visit(&tenants, part, TENANTS).await })
        })
        .collect();
    for task in tasks {
        let most = task.await.unwrap();
        assert!(most <= OPEN + 4, "{most} handles were open");
    }
    fixture.tenants.sweep().await;
    assert!(fixture.tenants.open_len() <= OPEN);
    let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    assert!(descriptors < 1_500, "{descriptors} descriptors");
    let again = fixture.tenants.open(&id("t7")).await.unwrap();
    assert_eq!(count(&again, again.schema().find("notes").unwrap()).await, 1);
}

async fn visit(tenants: &Tenants, part: usize, all: usize) -> usize {
    let mut most = 0;
    for number in (part..all).step_by(4) {
        let tenant = tenants.open(&id(&format!("t{number}"))).await.unwrap();
        let notes = tenant.schema().find("notes").unwrap().clone();
        // Writing to each would be 2,000 commits to a disk; one in twenty is enough to see that none is lost.
        if number % 20 == 7 {
            let image = note(&notes, "a", "here", 1.0);
            let collection = notes.clone();
            let write = move |tx: &mut crate::store::WriteTx<'_>| tx.insert(&collection, &image);
            tenant.write::<_, StoreError, _>(WriteMeta::system("test"), write).await.unwrap();
        }
        most = most.max(tenants.open_len());
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closing_store_writes_what_is_queued_and_refuses_the_rest() {
    let fixture = fixture();
    let (tenant, notes) = tenant_with_notes(&fixture, "one").await;
    let tasks: Vec<_> = (0..100)
        .map(|index| {
            let (tenant, notes) = (tenant.clone(), notes.clone());
            let name = format!("n{index}");
            tokio::spawn(async move { insert(&tenant, &notes, &name, &name).await })
        })
        .collect();
    while tenant.position() < 2 {
        tokio::task::yield_now().await;
    }
    fixture.tenants.shutdown().await;
    let mut stored = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => stored += 1,
            Err(StoreError::Closing) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(count(&tenant, &notes).await, stored);
    assert!(matches!(insert(&tenant, &notes, "late", "late").await, Err(StoreError::Closing)));
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_in_use_are_bounded_too_and_one_more_waits_for_a_place() {
    const OPEN: usize = 3;
    let fixture = fixture_with(|options| {
        options.open_max = OPEN;
        options.open_wait = std::time::Duration::ZERO;
    });
    let names: Vec<_> = (0..=OPEN + limits::OPEN_TENANTS_HEADROOM).map(|number| id(&format!("t{number}"))).collect();
    for name in &names {
        drop(fixture.tenants.create(name).await.unwrap());
    }
    assert!(fixture.tenants.open_len() <= OPEN + limits::OPEN_TENANTS_HEADROOM, "{}", fixture.tenants.open_len());
    let (last, others) = names.split_last().unwrap();
    assert!(fixture.tenants.close(last).await);
    let mut held = Vec::new();
    for name in others {
        held.push(fixture.tenants.open(name).await.unwrap());
    }
    for _ in 0..3 {
        let refused = fixture.tenants.open(last).await;
        assert!(matches!(refused, Err(StoreError::Busy)), "{refused:?}");
    }
    assert_eq!(fixture.tenants.open_len(), others.len(), "a refused opening leaves nothing");
    // Whoever asks for names holds nobody open.
    assert_eq!(fixture.tenants.list_open().len(), others.len());
    held.pop();
    fixture.tenants.open(last).await.unwrap();
    held.clear();
    fixture.tenants.sweep().await;
    assert!(fixture.tenants.open_len() <= OPEN);
}
