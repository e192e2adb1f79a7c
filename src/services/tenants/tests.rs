//! The registry over real files: lifecycle, crash leftovers, addressing.

use super::directory::TenantState;
use super::entry::{self, Save};
use super::*;
use crate::kernel::clock::{Clock, ManualClock};
use crate::kernel::error::{Code, Fault};
use crate::kernel::ident::{NodeId, RecordId, TenantId, TenantSlug};
use crate::kernel::random::{Random, SystemRandom};
use crate::kernel::value::Stored;
use crate::schema::plan::{self, Plan, PlanContext, Step, Unmentioned};
use crate::schema::{Collection, Schema, definition};
use crate::secrets::keys::NodeSecret;
use crate::secrets::seal::Sealer;
use crate::store::{self, StoreError, StoreOptions, TenantDb, WriteMeta};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// A node on a folder, without HTTP.
pub(crate) struct TestNode {
    pub(crate) registry: Registry,
    pub(crate) store: Arc<store::Tenants>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) sealer: Sealer,
}

impl TestNode {
    pub(crate) async fn open(folder: &Path) -> Self {
        Self::open_watched(folder, Vec::new()).await
    }

    pub(crate) async fn open_watched(folder: &Path, observers: Vec<Arc<dyn store::CommitObserver>>) -> Self {
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
        let time: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
        let mut options = StoreOptions::new(folder.to_path_buf(), NodeId([7; 16]), time, Arc::clone(&random));
        options.observers = observers;
        options.writer_threads = 2;
        let store = Arc::new(store::Tenants::start(options).unwrap());
        let sealer = Sealer::new(&NodeSecret::ephemeral(random.as_ref()));
        let registry = Registry::open(RegistryOptions {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            random: Arc::clone(&random),
            sealer: sealer.clone(),
        })
        .await
        .unwrap();
        Self { registry, store, clock, random, sealer }
    }

    pub(crate) async fn create(&self, slug: &str) -> TenantDb {
        let entry = self.registry.create(meta(), CreateTenant::plain(slug_of(slug))).await.unwrap();
        self.registry.open_tenant(&entry.id).await.unwrap()
    }

    pub(crate) async fn stop(self) {
        drop(self.registry);
        self.store.shutdown().await;
    }
}

pub(crate) fn meta() -> WriteMeta {
    WriteMeta::system("test")
}

pub(crate) fn slug_of(slug: &str) -> TenantSlug {
    TenantSlug::parse(slug).unwrap()
}

/// Puts a user with this address into a tenant.
pub(crate) async fn add_user(db: &TenantDb, id: &str, email: &str, password_hash: &str, token_key: &str) {
    let (id, email) = (RecordId::parse(id).unwrap(), email.to_owned());
    let (hash, key) = (password_hash.to_owned(), token_key.to_owned());
    db.write(meta(), move |tx| {
        let users = tx.schema().find(system::USERS).cloned().unwrap();
        let values =
            [("email", Stored::from(email)), ("password", Stored::from(hash)), ("tokenKey", Stored::from(key))];
        let image = rows::image(&users, id, &values, tx.now_ms());
        tx.insert(&users, &image)
    })
    .await
    .unwrap();
}

async fn user_count(db: &TenantDb) -> usize {
    db.read(|reader| {
        let users = reader.schema().find(system::USERS).cloned().unwrap();
        let mut count = 0;
        reader.for_each(&format!("SELECT id FROM \"{}\"", users.table()), &[], &mut |_| {
            count += 1;
            Ok(())
        })?;
        Ok::<_, StoreError>(count)
    })
    .await
    .unwrap()
}

fn code<T: std::fmt::Debug>(outcome: Result<T, TenantError>) -> Code {
    outcome.unwrap_err().code()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_node_has_main_and_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::open(folder.path()).await;
    let main = node.registry.resolve_slug(MAIN).unwrap();
    let db = node.registry.open_tenant(&main).await.unwrap();
    assert!(db.schema().find(system::USERS).is_some() && db.schema().find(system::SESSIONS).is_some());
    assert!(db.schema().find(system::SUPERUSERS).is_none(), "superusers live in the control database alone");
    assert_eq!(code(node.registry.delete(meta(), MAIN).await), Code::Conflict);
    drop(db);
    node.stop().await;
    let node = TestNode::open(folder.path()).await;
    assert_eq!(node.registry.resolve_slug(MAIN).unwrap(), main);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_lives_through_all_states_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::open(folder.path()).await;
    let db = node.create("acme").await;
    let id = db.id().clone();
    add_user(&db, "u1", "ada@acme.test", "", "k1").await;
    drop(db);
    assert_eq!(code(node.registry.create(meta(), CreateTenant::plain(slug_of("acme"))).await), Code::TenantExists);

    node.registry.suspend(meta(), "acme").await.unwrap();
    assert_eq!(code(node.registry.resolve_slug("acme")), Code::TenantSuspended);
    assert_eq!(code(node.registry.open_tenant(&id).await), Code::TenantSuspended);
    assert_eq!(node.registry.show("acme").await.unwrap().records, 1);
    node.registry.resume(meta(), "acme").await.unwrap();

    let rename = RenameTenant {
        slug: Some(slug_of("apex")),
        name: Some("Apex Ltd".into()),
        hosts: Some(vec!["Apex.Example.".into()]),
        ..RenameTenant::default()
    };
    node.registry.rename(meta(), "acme", rename).await.unwrap();
    assert_eq!(code(node.registry.resolve_slug("acme")), Code::TenantNotFound);
    assert_eq!(node.registry.resolve_host("apex.example").unwrap().unwrap(), id);
    node.stop().await;

    let node = TestNode::open(folder.path()).await;
    let entry = node.registry.find("apex").unwrap();
    assert_eq!((&entry.id, &*entry.name, entry.state), (&id, "Apex Ltd", TenantState::Active));
    assert_eq!(node.registry.resolve_host("apex.example").unwrap().unwrap(), id);
    assert_eq!(user_count(&node.registry.open_tenant(&id).await.unwrap()).await, 1);

    node.registry.delete(meta(), "apex").await.unwrap();
    assert_eq!(code(node.registry.resolve_slug("apex")), Code::TenantNotFound);
    assert!(!node.store.exists(&id));
    node.create("apex").await;
}

/// What a file of an earlier version lacks is added when it is opened, once, whoever opens it first.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_of_an_earlier_version_gets_what_is_missing_when_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::open(folder.path()).await;
    for suspended in [false, true] {
        let db = node.create(if suspended { "asleep" } else { "acme" }).await;
        let id = db.id().clone();
        make_older(&db).await;
        assert!(db.schema().find(system::REGISTRATIONS).is_none());
        drop(db);
        if suspended {
            node.registry.suspend(meta(), "asleep").await.unwrap();
        }
        assert!(node.store.close(&id).await);
        let open = async || match suspended {
            true => node.registry.open_any(&id).await,
            false => node.registry.open_tenant(&id).await,
        };
        let (first, second) = tokio::join!(open(), open());
        let (first, second) = (first.unwrap(), second.unwrap());
        for db in [&first, &second] {
            assert_eq!(system::plan_missing(&db.schema(), system::tenant_collections(0)), None);
        }
        let position = first.position();
        drop((first, second));
        assert!(node.store.close(&id).await);
        assert_eq!(open().await.unwrap().position(), position, "nothing is written where nothing is missing");
    }
}

/// Ids of the rows of `view`, sorted.
async fn ids_of(db: &TenantDb, view: &'static str) -> Vec<Stored> {
    let read = db.read(move |reader| {
        let view = reader.schema().find(view).cloned().unwrap();
        let mut ids = Vec::new();
        reader.for_each(&format!("SELECT id FROM \"{}\" ORDER BY id", view.table()), &[], &mut |row| {
            ids.push(row.stored(0)?);
            Ok(())
        })?;
        Ok::<_, StoreError>(ids)
    });
    read.await.unwrap()
}

/// Makes the view `ranks` as an earlier version did.
async fn age_views(db: &TenantDb) {
    let aged = db.write(meta(), |tx| {
        let id = tx.schema().find("ranks").unwrap().id.clone();
        let sql = tx.view_statements()?.remove(&id).unwrap();
        let older = sql.replace("CAST(\"id\" AS TEXT) AS id", "\"id\" AS id");
        assert_ne!(sql, older);
        let steps = vec![Step::DropView { id: id.clone(), sql }, Step::CreateView { id, sql: older }];
        let previous = Arc::clone(tx.schema());
        let next = Arc::new(Schema::new(previous.version() + 1, previous.collections().to_vec()));
        tx.apply_schema(&Plan { steps, previous, next })
    });
    aged.await.unwrap();
}

/// A view of an earlier version, which kept the numbers of counted rows for ids, kept them until it was saved again.
#[tokio::test(flavor = "multi_thread")]
async fn the_views_of_an_earlier_version_are_made_anew_when_the_file_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::open(folder.path()).await;
    let db = node.create("acme").await;
    let random = Arc::clone(&node.random);
    let made = db.write(meta(), move |tx| {
        let context = PlanContext { random: random.as_ref(), now_ms: 0, describe: &store::describe_in_scratch };
        let wanted = [
            json!({"name": "ranks", "type": "view",
                "viewQuery": "SELECT ROW_NUMBER() OVER (ORDER BY email) AS id, email FROM users"}),
            json!({"name": "again", "type": "view", "viewQuery": "SELECT id, email FROM ranks"}),
        ]
        .map(|view| definition::parse(&view).unwrap());
        tx.apply_schema(&plan::plan_import(tx.schema(), &wanted, Unmentioned::Keep, &context).unwrap())
    });
    made.await.unwrap();
    add_user(&db, "ada", "ada@example.com", "", "a").await;
    add_user(&db, "bob", "bob@example.com", "", "b").await;
    let texts = [Stored::text("1"), Stored::text("2")];
    assert_eq!(ids_of(&db, "again").await, texts);
    age_views(&db).await;
    for view in ["ranks", "again"] {
        assert_eq!(ids_of(&db, view).await, [Stored::Integer(1), Stored::Integer(2)], "{view}");
    }
    let (id, schema) = (db.id().clone(), db.schema());
    drop(db);
    assert!(node.store.close(&id).await);
    let (first, second) = tokio::join!(node.registry.open_tenant(&id), node.registry.open_tenant(&id));
    let (first, second) = (first.unwrap(), second.unwrap());
    for view in ["ranks", "again"] {
        assert_eq!(ids_of(&second, view).await, texts, "{view}");
    }
    assert_eq!(first.schema().collections(), schema.collections(), "what the views are called and show stays");
    assert!(
        first.schema().version() > schema.version(),
        "answers that are kept are not taken for those of the new view"
    );
    let position = first.position();
    drop((first, second));
    assert!(node.store.close(&id).await);
    let db = node.registry.open_tenant(&id).await.unwrap();
    assert_eq!(db.position(), position, "nothing is written twice");
    let checked = async |db: &TenantDb| db.read(|reader| reader.views_checked()).await.unwrap();
    assert_eq!(checked(&db).await, Some((plan::VIEW_FORM, db.schema().version())));

    // What was looked at is not looked at again; a file from elsewhere is not believed.
    age_views(&db).await;
    let note = db.write(meta(), |tx| tx.note_views_checked(plan::VIEW_FORM));
    note.await.unwrap();
    let copy = node.registry.clone_tenant(meta(), "acme", slug_of("copy"), "").await.unwrap();
    let copy = node.registry.open_tenant(&copy.entry.id).await.unwrap();
    assert_eq!(ids_of(&copy, "again").await, texts, "a copy is looked at");
    drop(db);
    assert!(node.store.close(&id).await);
    let db = node.registry.open_tenant(&id).await.unwrap();
    assert_eq!(ids_of(&db, "again").await, [Stored::Integer(1), Stored::Integer(2)]);
    // Another version, or a change of the collections by one.
    db.write(meta(), |tx| tx.note_views_checked(plan::VIEW_FORM - 1)).await.unwrap();
    drop(db);
    assert!(node.store.close(&id).await);
    let db = node.registry.open_tenant(&id).await.unwrap();
    assert_eq!(ids_of(&db, "again").await, texts);
    assert_eq!(checked(&db).await, Some((plan::VIEW_FORM, db.schema().version())));
    let plain = node.create("plain").await;
    assert_eq!(checked(&plain).await, None, "a tenant without views costs nothing");
    drop((db, copy, plain));
    node.stop().await;
}

/// An authenticator app, sealed for the tenant; the id of its row.
async fn totp_of(db: &TenantDb, node: &TestNode) -> RecordId {
    let place = sealed::totp_place("c", "u1");
    let text = node.sealer.seal(node.random.as_ref(), db.id(), &place, b"secret");
    put_app(db, text).await
}

async fn put_app(db: &TenantDb, text: String) -> RecordId {
    let id = RecordId::parse("app1").unwrap();
    let row = id.clone();
    let put = db.write(meta(), move |tx| {
        let totps = tx.schema().find(system::TOTPS).cloned().unwrap();
        let values =
            [("collectionRef", Stored::from("c")), ("recordRef", Stored::from("u1")), ("sealed", Stored::from(text))];
        if tx.find_record(&totps, row.as_str())?.is_some() {
            tx.delete(&totps, &row)?;
        }
        tx.insert(&totps, &rows::image(&totps, row, &values, tx.now_ms()))
    });
    put.await.unwrap();
    id
}

async fn sealed_app(db: &TenantDb, id: &RecordId) -> String {
    let id = id.clone();
    let found = db.read(move |reader| {
        let totps = reader.schema().find(system::TOTPS).cloned().unwrap();
        let row = reader.find_record(&totps, id.as_str())?.unwrap();
        Ok::<_, StoreError>(rows::text(&totps, &row, "sealed").to_owned())
    });
    found.await.unwrap()
}

/// Somebody who has an export of one tenant and may write into another puts a sealed text of the first into the second, and
/// has that copied. The copy must not open it.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_does_not_open_what_was_sealed_for_a_third_tenant() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::open(folder.path()).await;
    let (victim, own) = (node.create("victim").await, node.create("own").await);
    let app = totp_of(&victim, &node).await;
    let stolen = sealed_app(&victim, &app).await;
    put_app(&own, stolen.clone()).await;
    let copied = node.registry.clone_tenant(meta(), "own", slug_of("copy"), "").await.unwrap();
    assert_eq!(copied.unreadable, ["c.totp (1)"]);
    let copy = node.registry.open_tenant(&copied.entry.id).await.unwrap();
    assert_eq!(sealed_app(&copy, &app).await, stolen, "it stays as it is, and opens nothing");

    // An import follows the file, if all of it says the same.
    let exported = folder.path().join("out.tenant");
    node.registry.export("victim", exported.clone()).await.unwrap();
    let brought = node.registry.import(meta(), exported, slug_of("brought"), "").await.unwrap();
    assert!(brought.unreadable.is_empty());
    let smtp = node.sealer.seal(node.random.as_ref(), own.id(), sealed::SMTP_PASSWORD_PLACE, b"password");
    let made = own.write(meta(), move |tx| {
        let settings = tx.schema().find(system::SETTINGS).cloned().unwrap();
        let value = serde_json::json!({ "password": smtp }).to_string();
        let values = [("key", Stored::from("smtp")), ("value", Stored::from(value))];
        tx.insert(&settings, &rows::image(&settings, RecordId::parse("smtp1").unwrap(), &values, tx.now_ms()))
    });
    made.await.unwrap();
    let exported = folder.path().join("mixed.tenant");
    node.registry.export("own", exported.clone()).await.unwrap();
    let mixed = node.registry.import(meta(), exported, slug_of("mixed"), "").await.unwrap();
    assert_eq!(mixed.unreadable, ["smtp.password", "c.totp (1)"]);
}

/// Takes out of a tenant what later versions added: the registrations, and an index of the trail of logins.
async fn make_older(db: &TenantDb) {
    let made = db.write(meta(), |tx| {
        let previous = Arc::clone(tx.schema());
        let mut steps = Vec::new();
        let kept = previous.collections().iter().filter_map(|collection| match collection.name.as_str() {
            system::REGISTRATIONS => {
                steps.push(Step::DropTable(Arc::clone(collection)));
                None
            }
            system::AUTH_EVENTS => {
                let mut after = Collection::clone(collection);
                after.indexes.pop();
                let after = Arc::new(after);
                steps.push(Step::AlterTable { before: Arc::clone(collection), after: Arc::clone(&after) });
                Some(after)
            }
            _ => Some(Arc::clone(collection)),
        });
        let next = Arc::new(Schema::new(previous.version() + 1, kept.collect()));
        tx.apply_schema(&Plan { steps, previous, next })
    });
    made.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_and_imports_are_equal_and_apart() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::open(folder.path()).await;
    let source = node.create("source").await;
    add_user(&source, "u1", "ada@acme.test", "", "k1").await;
    let session = [("collectionRef", Stored::from("x")), ("recordRef", Stored::from("u1"))];
    source
        .write(meta(), move |tx| {
            let sessions = tx.schema().find(system::SESSIONS).cloned().unwrap();
            let image = rows::image(&sessions, RecordId::parse("s1").unwrap(), &session, tx.now_ms());
            tx.insert(&sessions, &image)
        })
        .await
        .unwrap();
    node.registry.clone_tenant(meta(), "source", slug_of("copy"), "").await.unwrap();
    let exported = folder.path().join("out.tenant");
    node.registry.export("source", exported.clone()).await.unwrap();
    node.registry.import(meta(), exported, slug_of("brought"), "Brought").await.unwrap();
    for slug in ["copy", "brought"] {
        let db = node.registry.open_tenant(&node.registry.resolve_slug(slug).unwrap()).await.unwrap();
        assert_ne!(db.id(), source.id());
        assert_eq!(user_count(&db).await, 1);
        let kept = db
            .read(|reader| {
                let sessions = reader.schema().find(system::SESSIONS).cloned().unwrap();
                reader.find_record(&sessions, "s1")
            })
            .await
            .unwrap();
        assert!(kept.is_none(), "a session of the source must not hold in {slug}");
        add_user(&db, "u2", "bob@acme.test", "", "k2").await;
    }
    assert_eq!(user_count(&source).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_of_a_crash_are_removed_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::open(folder.path()).await;
    let kept = node.create("kept").await.id().clone();
    let mut ids = Vec::new();
    for (slug, state) in [("half-made", TenantState::Creating), ("half-gone", TenantState::Deleting)] {
        let db = node.create(slug).await;
        let mut entry = TenantEntry::clone(&node.registry.find(slug).unwrap());
        entry.state = state;
        // What a crash between the control database and the file leaves behind.
        entry::save(node.registry.control(), meta(), &entry, Save::Update).await.unwrap();
        ids.push(db.id().clone());
    }
    let mut unmade = TenantEntry::clone(&node.registry.find("kept").unwrap());
    unmade.id = TenantId::parse("never_made").unwrap();
    unmade.slug = slug_of("never-made");
    unmade.state = TenantState::Creating;
    entry::save(node.registry.control(), meta(), &unmade, Save::Insert).await.unwrap();
    node.stop().await;
    // A creation that was cut off before its file had its name.
    let begun = folder.path().join("tenants/never_made");
    std::fs::create_dir_all(begun.join("files")).unwrap();
    std::fs::write(begun.join("data.db.tmp-abcdefgh"), "half a file").unwrap();

    let node = TestNode::open(folder.path()).await;
    assert!(!begun.exists());
    for id in &ids {
        assert!(!node.store.exists(id) && node.registry.entry(id).is_none());
    }
    assert!(node.registry.find("never-made").is_err());
    assert!(node.store.exists(&kept));
    node.create("half-made").await;
    node.stop().await;
    let node = TestNode::open(folder.path()).await;
    assert_eq!(node.registry.list(&TenantQuery::default()).total, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_cannot_be_filled_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::open(folder.path()).await;
    let refuse = |_db: TenantDb| -> std::pin::Pin<Box<dyn Future<Output = _> + Send>> {
        Box::pin(async {
            Err(Box::new(TenantError::Invalid { field: "x", expected: "y" }) as Box<dyn Fault + Send + Sync>)
        })
    };
    let request =
        CreateTenant { contents: Contents::Filled(Box::new(refuse)), ..CreateTenant::plain(slug_of("doomed")) };
    assert_eq!(code(node.registry.create(meta(), request).await), Code::ValidationFailed);
    assert_eq!(code(node.registry.resolve_slug("doomed")), Code::TenantNotFound);
    assert_eq!(node.store.list_files().await.unwrap().len(), 1);
    node.create("doomed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_operation_at_a_time_per_tenant() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::open(folder.path()).await;
    let id = node.create("acme").await.id().clone();
    let hold = node.registry.hold(&id, "acme").unwrap();
    assert_eq!(code(node.registry.suspend(meta(), "acme").await), Code::TenantBusy);
    assert_eq!(code(node.registry.delete(meta(), "acme").await), Code::TenantBusy);
    drop(hold);
    node.registry.suspend(meta(), "acme").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_leads_to_one_tenant_even_when_many_ask_for_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::open(folder.path()).await;
    let requests = (0..6).map(|n| {
        let hosts = vec!["shop.example".to_owned()];
        node.registry.create(meta(), CreateTenant { hosts, ..CreateTenant::plain(slug_of(&format!("t{n}"))) })
    });
    let outcomes = futures_util::future::join_all(requests).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(outcomes.into_iter().filter_map(Result::err).all(|error| error.code() == Code::Conflict));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_operation_left_can_be_deleted_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::open(folder.path()).await;
    for state in [TenantState::Creating, TenantState::Deleting] {
        let id = node.create("stuck").await.id().clone();
        let mut entry = TenantEntry::clone(&node.registry.find("stuck").unwrap());
        entry.state = state;
        node.registry.0.directory.put(Arc::new(entry));
        let hold = node.registry.hold(&id, "stuck").unwrap();
        assert_eq!(code(node.registry.delete(meta(), "stuck").await), Code::TenantBusy, "somebody works on it");
        drop(hold);
        node.registry.delete(meta(), "stuck").await.unwrap();
        assert!(!node.store.exists(&id) && node.registry.find("stuck").is_err());
        assert_eq!(code(node.registry.delete(meta(), "stuck").await), Code::TenantNotFound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_paged() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::open(folder.path()).await;
    for slug in ["b-one", "a-two", "a-one", "a-three"] {
        node.create(slug).await;
    }
    node.registry.suspend(meta(), "a-two").await.unwrap();
    let slugs = |query: TenantQuery| -> Vec<String> {
        node.registry.list(&query).items.iter().map(|entry| entry.slug.to_string()).collect()
    };
    let prefixed = TenantQuery { slug_prefix: "a-".into(), ..TenantQuery::default() };
    assert_eq!(slugs(prefixed.clone()), ["a-one", "a-three", "a-two"]);
    assert_eq!(slugs(TenantQuery { page: 2, per_page: 2, ..prefixed.clone() }), ["a-two"]);
    assert_eq!(slugs(TenantQuery { state: Some(TenantState::Suspended), ..prefixed }), ["a-two"]);
    assert_eq!(node.registry.list(&TenantQuery::default()).total, 5);
}
