//! The folder of files: kept, released, swept, carried.

use super::*;
use crate::kernel::clock::ManualClock;
use crate::kernel::ident::{NodeId, TenantId};
use crate::kernel::random::SeededRandom;
use crate::schema::definition;
use crate::schema::plan::{self, PlanContext};
use crate::schema::record::RecordImage;
use crate::store::{StoreOptions, Tenants, WriteMeta, describe_in_scratch};
use serde_json::json;

struct Fixture {
    tenants: Tenants,
    tenant: TenantDb,
    /// Lives as long as the store.
    _folder: tempfile::TempDir,
}

/// A tenant with the collection `papers`, whose field `scans` takes several files.
async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let (clock, random) = (Arc::new(ManualClock::new(1_700_000_000_000)), Arc::new(SeededRandom::new(7)));
    let options = StoreOptions::new(folder.path().to_path_buf(), NodeId([1; 16]), clock, random);
    let tenants = Tenants::start(options).unwrap();
    let tenant = tenants.create(&TenantId::parse("acme").unwrap()).await.unwrap();
    let body =
        json!({ "name": "papers", "type": "base", "fields": [{ "name": "scans", "type": "file", "maxSelect": 9 }] });
    let random = SeededRandom::new(3);
    let context = PlanContext { random: &random, now_ms: 0, describe: &describe_in_scratch };
    let plan = plan::plan_create(&tenant.schema(), &definition::parse(&body).unwrap(), &context).unwrap();
    tenant.write(WriteMeta::system("test"), move |tx| tx.apply_schema(&plan)).await.unwrap();
    Fixture { tenants, tenant, _folder: folder }
}

impl Fixture {
    fn place(&self, record: &str, name: &str) -> FileRef {
        FileRef {
            collection: self.tenant.schema().find("papers").unwrap().id.clone(),
            record: RecordId::parse(record).unwrap(),
            name: FileName::parse(name).unwrap(),
        }
    }

    async fn stage(&self, content: &[u8]) -> Arc<StagedFile> {
        let mut file = self.tenant.stage_file().await.unwrap();
        file.write(content).await.unwrap();
        Arc::new(file.finish().await.unwrap())
    }

    async fn keep(&self, record: &str, name: &str) -> FileRef {
        let place = self.place(record, name);
        self.tenant.keep_files(vec![(self.stage(b"content").await, place.clone())]).await.unwrap();
        place
    }

    async fn set(&self, record: &str, names: &[&str]) {
        let collection = self.tenant.schema().find("papers").unwrap().clone();
        let number = collection.find_field("scans").unwrap().number;
        let (id, value) = (RecordId::parse(record).unwrap(), Stored::from(json!(names).to_string()));
        let write = move |tx: &mut crate::store::WriteTx<'_>| match tx.find_record(&collection, id.as_str())? {
            Some(_) => tx.update(&collection, &id, &[(number, value)]),
            None => tx.insert(&collection, &RecordImage::new(id, [(number, value)])),
        };
        self.tenant.write(WriteMeta::system("test"), write).await.unwrap();
    }

    fn has(&self, place: &FileRef) -> bool {
        place.path(&self.tenant.files_root()).is_file()
    }
}

#[tokio::test]
async fn a_staged_file_knows_its_content_and_goes_with_its_handle() {
    let fixture = fixture().await;
    let staged = fixture.stage(&vec![b'x'; limits::FILE_HEAD_BYTES + 5]).await;
    assert_eq!((staged.bytes as usize, staged.head.len()), (limits::FILE_HEAD_BYTES + 5, limits::FILE_HEAD_BYTES));
    let path = staged.path.clone();
    assert!(path.is_file());
    drop(staged);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_name_that_is_taken_is_never_written_over() {
    let fixture = fixture().await;
    let place = fixture.keep("r1", "a.txt").await;
    let other = fixture.stage(b"other").await;
    let free = fixture.place("r1", "free.txt");
    let files = vec![(fixture.stage(b"free").await, free.clone()), (other, place.clone())];
    assert!(fixture.tenant.keep_files(files).await.is_err());
    assert_eq!(fs::read(place.path(&fixture.tenant.files_root())).unwrap(), b"content");
    assert!(!fixture.has(&free), "a failed list is taken back");
}

#[tokio::test]
async fn what_a_commit_lets_go_of_is_removed_and_a_rollback_removes_nothing() {
    let fixture = fixture().await;
    let (a, b) = (fixture.keep("r1", "a.txt").await, fixture.keep("r1", "b.txt").await);
    fixture.set("r1", &["a.txt", "b.txt"]).await;
    let collection = fixture.tenant.schema().find("papers").unwrap().clone();
    let doomed = Arc::clone(&collection);
    let refused = fixture.tenant.write(WriteMeta::system("test"), move |tx| {
        tx.delete(&doomed, &RecordId::parse("r1").unwrap())?;
        Err::<(), _>(StoreError::Busy)
    });
    assert!(refused.await.is_err());
    fixture.set("r1", &["b.txt"]).await;
    // Closing waits for the removals, so what is there afterwards is what stays.
    fixture.tenant.inner().remover().close();
    assert!(!fixture.has(&a) && fixture.has(&b));
}

#[tokio::test]
async fn nothing_is_removed_while_a_copy_is_being_made() {
    let fixture = fixture().await;
    let a = fixture.keep("r1", "a.txt").await;
    fixture.set("r1", &["a.txt"]).await;
    let guard = fixture.tenant.inner().remover().hold(fixture.tenant.id());
    fixture.set("r1", &[]).await;
    fixture.tenant.inner().remover().close();
    assert!(fixture.has(&a));
    assert_eq!(fixture.tenant.sweep_files(i64::MAX).await.unwrap(), 0);
    drop(guard);
    assert_eq!(fixture.tenant.sweep_files(i64::MAX).await.unwrap(), 1);
    assert!(!fixture.has(&a));
}

#[tokio::test]
async fn the_sweep_takes_what_is_old_and_nobody_names() {
    let fixture = fixture().await;
    let (named, forgotten) = (fixture.keep("r1", "named.txt").await, fixture.keep("r1", "forgotten.txt").await);
    let orphan = fixture.keep("r2", "orphan.txt").await;
    fixture.set("r1", &["named.txt"]).await;
    let root = fixture.tenant.files_root();
    let left = root.join(STAGING).join("left");
    fs::write(&left, b"x").unwrap();
    assert_eq!(fixture.tenant.sweep_files(0).await.unwrap(), 0, "young files stay");
    assert_eq!(fixture.tenant.sweep_files(i64::MAX).await.unwrap(), 3);
    assert!(fixture.has(&named) && !fixture.has(&forgotten) && !fixture.has(&orphan) && !left.exists());
    assert!(!root.join(orphan.collection.as_str()).join("r2").exists(), "empty folders go too");
}

#[tokio::test]
async fn a_foreign_file_cannot_lead_out_of_the_folder() {
    let fixture = fixture().await;
    fixture.keep("r1", "a.txt").await;
    let exported = fixture._folder.path().join("out.tenant");
    fixture.tenants.export(fixture.tenant.id(), &exported).await.unwrap();
    let connection = rusqlite::Connection::open(&exported).unwrap();
    connection.execute("UPDATE _tn_files SET name = '../../../evil'", []).unwrap();
    connection.close().unwrap();
    let refused = fixture.tenants.import(&TenantId::parse("beta").unwrap(), &exported).await;
    assert!(matches!(refused, Err(StoreError::NotATenant(_))), "{refused:?}");
    assert!(!fixture._folder.path().join("tenants/beta").exists());
}
