//! The disk tier over real folders: survival, damage, loss, a second process.

use super::*;
use std::path::Path;

fn options(root: &Path) -> SledTierOptions {
    SledTierOptions {
        root: root.to_path_buf(),
        bytes_max: 64 << 20,
        memory_bytes: 1 << 20,
        read_deadline: Duration::from_secs(10),
        group_of: |key| key.get(..1),
    }
}

#[expect(clippy::disallowed_methods, reason = "the disk thread says nothing when it is done")]
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

/// Waits until the disk thread has done what was asked so far, then looks at the state.
async fn settled(tier: &SledTier, wanted: impl Fn(&DiskState) -> bool) -> DiskState {
    for _ in 0..500 {
        let state = tier.stats().state;
        if wanted(&state) {
            return state;
        }
        a_moment().await;
    }
    tier.stats().state
}

async fn ready(tier: &SledTier) {
    assert_eq!(settled(tier, |state| *state == DiskState::Ready).await, DiskState::Ready);
}

async fn text(tier: &SledTier, key: &str) -> Option<String> {
    match tier.get(key.as_bytes().to_vec()).await {
        DiskRead::Found(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        DiskRead::Absent | DiskRead::Failed => None,
    }
}

async fn filled(root: &Path, count: usize) {
    let tier = SledTier::start(options(root));
    ready(&tier).await;
    for n in 0..count {
        assert!(tier.put(format!("k{n}").into_bytes(), Bytes::from(format!("value {n} ").repeat(400))));
    }
    assert!(tier.put_surely(b"last".to_vec(), Bytes::from_static(b"last")).await);
    tier.close();
}

fn database_file(root: &Path) -> PathBuf {
    let generation = std::fs::read_dir(root)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.is_dir() && path.file_name().unwrap().to_string_lossy().starts_with("v1-"));
    generation.unwrap().join("db")
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    filled(root.path(), 20).await;
    let tier = SledTier::start(options(root.path()));
    ready(&tier).await;
    assert!(text(&tier, "k7").await.unwrap().starts_with("value 7 "));
    tier.remove(b"k7".to_vec());
    assert!(tier.put_surely(b"x".to_vec(), Bytes::new()).await);
    assert_eq!(text(&tier, "k7").await, None);
    assert_eq!(tier.stats().resets, 0);
    tier.close();
}

#[tokio::test]
async fn a_second_process_leaves_the_folder_alone_and_runs_without() {
    let root = tempfile::tempdir().unwrap();
    let first = SledTier::start(options(root.path()));
    ready(&first).await;
    assert!(first.put_surely(b"k".to_vec(), Bytes::from_static(b"mine")).await);
    let second = SledTier::start(options(root.path()));
    let state = settled(&second, |state| *state != DiskState::Opening).await;
    assert_eq!(state, DiskState::Degraded("another process uses the cache folder".to_owned()));
    assert_eq!(second.get(b"k".to_vec()).await, DiskRead::Failed);
    second.close();
    assert_eq!(text(&first, "k").await.as_deref(), Some("mine"));
    first.close();
    drop(first);
    let third = SledTier::start(options(root.path()));
    ready(&third).await;
    assert_eq!(text(&third, "k").await.as_deref(), Some("mine"), "nothing was thrown away by the refused one");
    third.close();
}

/// The layout of the folder is part of its name: another release's is not opened, whatever it holds, and does not stay.
#[tokio::test]
async fn a_store_of_another_layout_is_left_alone_and_removed() {
    let root = tempfile::tempdir().unwrap();
    filled(root.path(), 3).await;
    let ours = database_file(root.path()).parent().unwrap().to_path_buf();
    let (older, newer) = (root.path().join("v0-0000000001"), root.path().join("v2-0000000007"));
    std::fs::rename(&ours, &older).unwrap();
    std::fs::create_dir(&newer).unwrap();
    std::fs::write(newer.join("db"), "of a layout to come").unwrap();
    for kept in ["v1-notes", "backup"] {
        std::fs::create_dir(root.path().join(kept)).unwrap();
    }
    let tier = SledTier::start(options(root.path()));
    ready(&tier).await;
    assert_eq!((text(&tier, "last").await, tier.stats().resets), (None, 0));
    assert!(!older.exists() && !newer.exists(), "they would take room for ever");
    assert!(root.path().join("v1-notes").exists() && root.path().join("backup").exists(), "what is not ours stays");
    assert!(tier.put_surely(b"last".to_vec(), Bytes::from_static(b"again")).await);
    assert_eq!(text(&tier, "last").await.as_deref(), Some("again"));
}

/// After a quick restart the store was taken for damaged and thrown away, because a thread of sled's had not yet let go of
/// its file.
#[tokio::test]
async fn a_store_that_is_not_let_go_of_yet_is_waited_for_and_kept() {
    for held_for_long in [false, true] {
        let root = tempfile::tempdir().unwrap();
        filled(root.path(), 1).await;
        let file = std::fs::File::open(database_file(root.path())).unwrap();
        for _ in 0..500 {
            if file.try_lock().is_ok() {
                break;
            }
            a_moment().await;
        }
        let tier = SledTier::start(options(root.path()));
        if held_for_long {
            let state = settled(&tier, |state| *state != DiskState::Opening).await;
            assert_eq!(state, DiskState::Degraded("another process uses the cache folder".to_owned()));
            drop(file);
        } else {
            // Let go of while it is waited for: the tier is never without.
            let holding = std::thread::spawn(move || {
                std::thread::park_timeout(Duration::from_millis(100));
                drop(file);
            });
            assert_eq!(settled(&tier, |state| *state != DiskState::Opening).await, DiskState::Ready);
            holding.join().unwrap();
        }
        ready(&tier).await;
        assert_eq!(text(&tier, "last").await.as_deref(), Some("last"));
        assert_eq!(tier.stats().resets, 0);
        tier.close();
    }
}

#[tokio::test]
async fn damaged_and_truncated_stores_heal_or_start_empty() {
    for damage in ["flip early", "flip late", "flip many", "truncate", "noise", "empty"] {
        let root = tempfile::tempdir().unwrap();
        filled(root.path(), 200).await;
        let path = database_file(root.path());
        let mut bytes = std::fs::read(&path).unwrap();
        let len = bytes.len();
        match damage {
            "flip early" => bytes[40] ^= 0x10,
            "flip late" => bytes[len / 2] ^= 0x10,
            "flip many" => (0..len).step_by(997).for_each(|at| bytes[at] ^= 0x55),
            "truncate" => bytes.truncate(len / 3),
            "noise" => {
                bytes.iter_mut().zip(0_u32..).for_each(|(byte, n)| *byte = (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            }
            _ => bytes.clear(),
        }
        std::fs::write(&path, bytes).unwrap();
        let tier = SledTier::start(options(root.path()));
        ready(&tier).await;
        for n in 0..200 {
            if let Some(found) = text(&tier, &format!("k{n}")).await {
                assert_eq!(found, format!("value {n} ").repeat(400), "{damage}");
            }
        }
        // A read may have met damage and reset the store; it must come back and take writes.
        let mut healed = false;
        for _ in 0..100 {
            ready(&tier).await;
            healed = tier.put_surely(b"new".to_vec(), Bytes::from_static(b"new")).await;
            if healed {
                break;
            }
        }
        assert!(healed, "{damage}");
        assert_eq!(text(&tier, "new").await.as_deref(), Some("new"), "{damage}");
        tier.close();
    }
}

#[tokio::test]
async fn a_folder_deleted_while_running_is_made_anew() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("cache");
    let tier = SledTier::start(options(&folder));
    ready(&tier).await;
    assert!(tier.put_surely(b"k".to_vec(), Bytes::from_static(b"v")).await);
    std::fs::remove_dir_all(&folder).unwrap();
    let state = settled(&tier, |state| matches!(state, DiskState::Degraded(_))).await;
    assert!(matches!(state, DiskState::Degraded(_)), "{state:?}");
    ready(&tier).await;
    assert!(tier.put_surely(b"k".to_vec(), Bytes::from_static(b"again")).await);
    assert_eq!(text(&tier, "k").await.as_deref(), Some("again"));
    assert!(tier.stats().resets >= 1);
    tier.close();
}

#[tokio::test]
async fn a_store_over_its_budget_is_replaced_by_an_empty_one() {
    let root = tempfile::tempdir().unwrap();
    let tier = SledTier::start(SledTierOptions { bytes_max: 2 << 20, ..options(root.path()) });
    ready(&tier).await;
    for round in 0..6 {
        for n in 0..200 {
            let mut value = vec![0_u8; 3_000];
            value
                .iter_mut()
                .zip(0_u32..)
                .for_each(|(byte, at)| *byte = (at.wrapping_mul(n + round * 977 + 1) >> 7) as u8);
            tier.put(format!("k{round}-{n}").into_bytes(), Bytes::from(value));
        }
        assert!(tier.put_surely(b"k".to_vec(), Bytes::from_static(b"v")).await);
        assert_eq!(settled(&tier, |state| *state == DiskState::Ready).await, DiskState::Ready);
    }
    assert!(tier.stats().rotations >= 1);
    tier.discard("because");
    assert!(tier.put_surely(b"z".to_vec(), Bytes::from_static(b"z")).await);
    assert_eq!(text(&tier, "k").await, None);
    assert_eq!(text(&tier, "z").await.as_deref(), Some("z"));
    tier.close();
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_degrades_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let blocked = root.path().join("file");
    std::fs::write(&blocked, b"in the way").unwrap();
    let tier = SledTier::start(options(&blocked));
    let state = settled(&tier, |state| matches!(state, DiskState::Degraded(_))).await;
    assert!(matches!(state, DiskState::Degraded(_)));
    assert_eq!(tier.get(b"k".to_vec()).await, DiskRead::Failed);
    std::fs::remove_file(&blocked).unwrap();
    ready(&tier).await;
    tier.close();
}

/// Reads that nobody waited for any more used to be dropped without a sign of life, so eight late ones in a row switched
/// reading off for good.
#[tokio::test]
async fn late_reads_pause_the_tier_and_it_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let (tier, worker) =
        SledTier::unstarted(SledTierOptions { read_deadline: Duration::from_millis(1), ..options(root.path()) });
    *tier.shared.state.lock() = DiskState::Ready;
    for _ in 0..LATE_MAX {
        assert_eq!(tier.stats().state, DiskState::Ready);
        assert_eq!(tier.get(b"k".to_vec()).await, DiskRead::Failed);
    }
    assert!(matches!(tier.stats().state, DiskState::Degraded(_)), "{:?}", tier.stats());
    assert_eq!(tier.get(b"k".to_vec()).await, DiskRead::Failed);
    assert_eq!(tier.stats().timeouts, u64::from(LATE_MAX), "a paused tier is not asked");
    let thread = std::thread::spawn(move || worker.run());
    ready(&tier).await;
    tier.close();
    thread.join().unwrap();
}

#[tokio::test]
async fn what_a_group_holds_is_counted_as_it_changes_and_again_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let usage = |tier: &SledTier| (tier.usage(b"a"), tier.usage(b"b"));
    let of = |bytes, entries| GroupUsage { bytes, entries };
    let tier = SledTier::start(options(root.path()));
    ready(&tier).await;
    for n in 0..300 {
        tier.put(format!("a{n}").into_bytes(), Bytes::from(vec![1; 10_000]));
        tier.put(format!("b{n}").into_bytes(), Bytes::from(vec![1; 10]));
    }
    for n in 0..100 {
        tier.put(format!("a{n}").into_bytes(), Bytes::from(vec![1; 100]));
        tier.remove(format!("b{n}").into_bytes());
    }
    tier.remove(b"bnone".to_vec());
    assert!(tier.put_surely(b"c".to_vec(), Bytes::new()).await);
    let expected = (of(200 * 10_000 + 100 * 100, 300), of(200 * 10, 200));
    assert_eq!(until_counted(&tier, &expected).await, expected);
    tier.close();

    let tier = SledTier::start(options(root.path()));
    ready(&tier).await;
    // Changed while the store is being looked through: counted once, wherever the look-through stands.
    for n in 0..50 {
        tier.put(format!("a{n}").into_bytes(), Bytes::from(vec![1; 10]));
        tier.remove(format!("b{}", 250 + n).into_bytes());
    }
    let expected = (of(200 * 10_000 + 50 * 100 + 50 * 10, 300), of(150 * 10, 150));
    assert_eq!(until_counted(&tier, &expected).await, expected);
    tier.discard("nothing is left");
    let expected = Default::default();
    assert_eq!(until_counted(&tier, &expected).await, expected);
    assert_eq!(usage(&tier), expected);
}

async fn until_counted(tier: &SledTier, expected: &(GroupUsage, GroupUsage)) -> (GroupUsage, GroupUsage) {
    for _ in 0..1_000 {
        let found = (tier.usage(b"a"), tier.usage(b"b"));
        if found == *expected {
            return found;
        }
        a_moment().await;
    }
    (tier.usage(b"a"), tier.usage(b"b"))
}

#[tokio::test]
async fn a_value_that_another_replaced_meanwhile_is_not_removed_for_it() {
    let root = tempfile::tempdir().unwrap();
    let tier = SledTier::start(options(root.path()));
    ready(&tier).await;
    let (old, new) = (Bytes::from_static(b"old"), Bytes::from_static(b"new"));
    tier.put(b"k".to_vec(), old.clone());
    tier.put(b"k".to_vec(), new.clone());
    tier.remove_this(b"k".to_vec(), old);
    assert!(tier.put_surely(b"sync".to_vec(), Bytes::new()).await);
    assert_eq!(text(&tier, "k").await.as_deref(), Some("new"));
    tier.remove_this(b"k".to_vec(), new);
    assert!(tier.put_surely(b"sync".to_vec(), Bytes::new()).await);
    assert_eq!((text(&tier, "k").await, tier.usage(b"k")), (None, GroupUsage::default()));
    tier.close();
}

#[tokio::test]
async fn a_pass_removes_what_is_dead_wherever_it_lies_and_counts_it_off() {
    let root = tempfile::tempdir().unwrap();
    filled(root.path(), 600).await;
    let (tier, worker) = SledTier::unstarted(options(root.path()));
    let ends_with = |end: u8| -> IsDead { Arc::new(move |key, _| key.ends_with(&[end])) };
    // The second and the third are asked for before the first can be done: one more pass, the last.
    tier.sweep(ends_with(b'3'));
    tier.sweep(ends_with(b'9'));
    tier.sweep(Arc::new(|key, beginning| key.ends_with(b"7") && beginning.starts_with(b"value")));
    let thread = std::thread::spawn(move || worker.run());
    ready(&tier).await;
    // Reads go on, and do not put the passes off for ever.
    while tier.stats().swept < 120 {
        // It may go between the two.
        let was_gone = tier.get(b"k3".to_vec()).await == DiskRead::Absent;
        assert!(text(&tier, "k3").await.is_none() || !was_gone, "what is gone stays gone");
    }
    for n in 0..600 {
        assert_eq!(text(&tier, &format!("k{n}")).await.is_none(), n % 10 == 3 || n % 10 == 7, "k{n}");
    }
    for _ in 0..1_000 {
        if tier.usage(b"k").entries == 480 {
            break;
        }
        a_moment().await;
    }
    assert_eq!((tier.usage(b"k").entries, tier.usage(b"l").entries), (480, 1));
    tier.close();
    thread.join().unwrap();
}
