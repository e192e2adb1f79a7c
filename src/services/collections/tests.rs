//! Collection changes and blueprints on real tenant files.

use super::*;
use crate::access::lint::{Severity, lint};
use crate::kernel::clock::Clock;
use crate::kernel::value::Stored;
use crate::schema::record::RecordImage;
use crate::secrets::keys::NodeSecret;
use crate::secrets::seal::Sealer;
use crate::services::blueprints::{self, BlueprintError, Catalog};
use crate::services::sample::{SampleRequest, SampleSize};
use crate::services::tenants::tests::{TestNode, meta, slug_of};
use crate::services::tenants::{BlueprintRef, CreateTenant};
use std::sync::Mutex;
use tempfile::TempDir;

struct Fixture {
    node: TestNode,
    tenant: TenantDb,
    _folder: TempDir,
}

async fn fixture() -> Fixture {
    let folder = TempDir::new().unwrap();
    let node = TestNode::open(folder.path()).await;
    let tenant = node.create("acme").await;
    Fixture { node, tenant, _folder: folder }
}

impl Fixture {
    async fn create(&self, body: Value) -> Result<Value, CollectionError> {
        create(&self.tenant, meta(), self.node.random.clone(), &body).await.map(|written| written.value)
    }

    async fn update(&self, name: &str, body: Value) -> Result<Value, CollectionError> {
        update(&self.tenant, meta(), self.node.random.clone(), name, &body).await.map(|written| written.value)
    }

    async fn insert(&self, collection: &str, id: &str, values: &[(&str, &str)]) {
        let (name, id) = (collection.to_owned(), RecordId::parse(id).unwrap());
        let values: Vec<(String, Stored)> =
            values.iter().map(|(name, value)| ((*name).to_owned(), Stored::text(value))).collect();
        let write = move |tx: &mut WriteTx<'_>| {
            let collection = tx.schema().find(&name).cloned().unwrap();
            let numbered =
                values.iter().map(|(name, value)| (collection.find_field(name).unwrap().number, value.clone()));
            let record = RecordImage::new(id, numbered.collect::<Vec<_>>());
            tx.insert(&collection, &record)
        };
        self.tenant.write(meta(), write).await.map(drop).map_err(|error: StoreError| error).unwrap();
    }

    async fn count(&self, collection: &str) -> i64 {
        let name = collection.to_owned();
        let read = move |reader: &Reader<'_>| {
            let table = reader.schema().find(&name).unwrap().table();
            let sql = format!("SELECT count(*) FROM \"{table}\"");
            let count = reader.find_one(&sql, &[], |row| Ok(row.stored(0)?.as_number().unwrap_or(0.0)))?;
            Ok::<_, StoreError>(count.unwrap_or(0.0) as i64)
        };
        self.tenant.read(read).await.unwrap()
    }
}

fn notes() -> Value {
    json!({"name": "notes", "listRule": "owner = @request.auth.id", "fields": [
        {"name": "title", "type": "text"}, {"name": "owner", "type": "relation", "collectionId": "users"}]})
}

#[tokio::test]
async fn a_collection_lives() {
    let f = fixture().await;
    let made = f.create(notes()).await.unwrap();
    assert_eq!((made["name"].as_str(), made["type"].as_str()), (Some("notes"), Some("base")));
    assert_eq!(get(&f.tenant.schema(), "notes").unwrap(), made);
    f.insert("notes", "n1", &[("title", "same")]).await;
    f.insert("notes", "n2", &[("title", "same")]).await;

    let refused =
        f.update("notes", json!({"indexes": ["CREATE UNIQUE INDEX i_title ON notes (title)"]})).await.unwrap_err();
    let details = refused.details();
    assert_eq!(details.len(), 1, "{refused:?}");
    assert_eq!((refused.code(), details[0].field.as_str()), (Code::SchemaInvalid, "indexes"), "{details:?}");
    assert!(details[0].message.contains("of title"), "{details:?}");

    let renamed = f.update("notes", json!({"name": "memos", "viewRule": ""})).await.unwrap();
    assert_eq!((renamed["name"].as_str(), renamed["viewRule"].as_str()), (Some("memos"), Some("")));
    assert_eq!(f.count("memos").await, 2);
    assert_eq!(truncate(&f.tenant, meta(), "memos", || true).await.unwrap(), 2);
    delete(&f.tenant, meta(), f.node.random.clone(), "memos").await.unwrap();
    assert_eq!(get(&f.tenant.schema(), "memos").unwrap_err().code(), Code::CollectionNotFound);
}

/// One step of 5,000 could need more for its log than a full disk has left.
#[tokio::test]
async fn a_collection_is_emptied_in_small_steps_on_a_full_disk() {
    let f = fixture().await;
    f.create(notes()).await.unwrap();
    let count = limits::TRUNCATE_BATCH_LEN_TIGHT * 2 + 50;
    for n in 0..count {
        f.insert("notes", &format!("n{n}"), &[("title", "same")]).await;
    }
    let steps = std::cell::Cell::new(0);
    let full = || {
        steps.set(steps.get() + 1);
        false
    };
    assert_eq!(truncate(&f.tenant, meta(), "notes", full).await.unwrap(), count as u64);
    assert_eq!((f.count("notes").await, steps.get()), (0, 3));
}

#[tokio::test]
async fn rules_are_checked_where_they_are_written_and_where_they_would_break() {
    let f = fixture().await;
    let refused = f.create(json!({"name": "x", "listRule": "nope = 1"})).await.unwrap_err();
    assert_eq!((refused.code(), refused.details()[0].field.clone()), (Code::RuleInvalid, "listRule".to_owned()));
    f.create(notes()).await.unwrap();
    f.create(json!({"name": "pins", "viewRule": "note.title != ''", "fields": [
        {"name": "note", "type": "relation", "collectionId": "notes"}]}))
        .await
        .unwrap();
    let mut fields = get(&f.tenant.schema(), "notes").unwrap()["fields"].clone();
    fields[1]["name"] = json!("heading");
    let refused = f.update("notes", json!({"fields": fields})).await.unwrap_err();
    assert_eq!(refused.details()[0].field, "pins.viewRule");
}

#[tokio::test]
async fn what_others_need_stays() {
    let f = fixture().await;
    f.create(notes()).await.unwrap();
    f.insert("users", "ada", &[("email", "ada@example.com"), ("tokenKey", "k1")]).await;
    f.insert("notes", "n1", &[("owner", "ada")]).await;
    let error = truncate(&f.tenant, meta(), "users", || true).await.unwrap_err();
    assert!(error.public().contains("notes.owner"), "{error}");
    let error = delete(&f.tenant, meta(), f.node.random.clone(), "users").await.unwrap_err();
    assert_eq!(error.code(), Code::Conflict);
    for name in ["_sessions", "_settings"] {
        assert_eq!(delete(&f.tenant, meta(), f.node.random.clone(), name).await.unwrap_err().code(), Code::Forbidden);
        assert!(f.update(name, json!({"fields": [{"name": "id", "type": "text"}]})).await.is_err());
    }
    assert!(f.create(json!({"name": "_mine", "system": true})).await.is_err());
}

#[tokio::test]
async fn lists_sort_and_page() {
    let f = fixture().await;
    for name in ["bee", "ant", "cat"] {
        f.create(json!({"name": name})).await.unwrap();
    }
    let query =
        |page, per_page, sort: &str| CollectionsQuery { page, per_page, sort: sort.to_owned(), skip_total: false };
    let names = |answer: &Value| -> Vec<String> {
        answer["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    let schema = f.tenant.schema();
    let all = list(&schema, &query(1, 500, "name")).unwrap();
    let user_made: Vec<_> = names(&all).into_iter().filter(|name| !name.starts_with('_')).collect();
    assert_eq!(user_made, ["ant", "bee", "cat", "users"]);
    let second = list(&schema, &query(2, 1, "-name")).unwrap();
    assert_eq!((names(&second), &second["totalItems"]), (vec!["cat".to_owned()], &all["totalItems"]));
    assert!(list(&schema, &query(1, 1, "secret")).is_err());
    let scaffolds = scaffolds(f.node.random.as_ref()).unwrap();
    assert_eq!(scaffolds["auth"]["fields"].as_array().map(Vec::len), Some(6));
}

#[tokio::test]
async fn shipped_blueprints_make_tenants_with_samples() {
    let f = fixture().await;
    for blueprint in crate::schema::blueprint::shipped() {
        let slug = format!("t-{}", blueprint.name);
        let request = SampleRequest { seed: 3, size: SampleSize { tournaments: 10, players: 200, matches: 200 } };
        let clock: Arc<dyn Clock> = f.node.clock.clone();
        let about = BlueprintRef { name: blueprint.name.clone(), version: blueprint.version };
        let contents = blueprints::contents(blueprint.clone(), meta(), f.node.random.clone(), Some((request, clock)));
        let wanted = CreateTenant { contents, blueprint: Some(about), ..CreateTenant::plain(slug_of(&slug)) };
        let entry = f.node.registry.create(meta(), wanted).await.unwrap();
        let tenant = f.node.registry.open_tenant(&entry.id).await.unwrap();
        for collection in tenant.schema().collections().iter().filter(|collection| !collection.system) {
            let table = collection.table();
            let read = move |reader: &Reader<'_>| {
                let sql = format!("SELECT * FROM \"{table}\" LIMIT 5");
                let mut rows = 0;
                reader.for_each(&sql, &[], &mut |_| {
                    rows += 1;
                    Ok(())
                })?;
                Ok::<_, StoreError>(rows)
            };
            assert!(tenant.read(read).await.unwrap() > 0, "{} of {} is empty", collection.name, blueprint.name);
        }
        let mistakes: Vec<_> =
            lint(&tenant.schema()).into_iter().filter(|finding| finding.severity >= Severity::Warning).collect();
        assert_eq!(mistakes, [], "{}", blueprint.name);
        // Applying what is there already changes nothing but the time of the change.
        let before = tenant.schema();
        blueprints::apply(&tenant, meta(), f.node.random.clone(), &blueprint).await.unwrap();
        assert_eq!(before.collections().len(), tenant.schema().collections().len());
    }
}

fn catalog(f: &Fixture) -> Catalog {
    let random = f.node.random.clone();
    let sealer = Sealer::new(&NodeSecret::ephemeral(random.as_ref()));
    Catalog::new(f.node.registry.control().clone(), random, sealer)
}

#[tokio::test]
async fn a_blueprint_keeps_its_secrets_sealed_and_hands_them_to_tenants_alone() {
    let f = fixture().await;
    let catalog = catalog(&f);
    let provider = json!({"name": "google", "clientId": "c", "clientSecret": "plain-and-secret"});
    let members = json!({"name": "members", "type": "auth", "oauth2": {"enabled": true, "providers": [provider]}});
    let body = json!({"name": "club", "version": 1, "collections": [members, {"name": "secret"}]});
    catalog.publish(meta(), &body).await.unwrap();
    let found = catalog.find("club", None).await.unwrap();
    assert_eq!(*found.source, body, "it comes back as it was");
    let shown = blueprints::shown(&found);
    assert!(!shown.to_string().contains("plain-and-secret"), "{shown}");
    assert_eq!(shown["collections"][1]["name"], "secret", "a name is no secret");
    let read = |reader: &Reader<'_>| {
        let kept = reader.schema().find("_blueprints").cloned().unwrap();
        let column = kept.find_field("definition").unwrap().column().into_owned();
        reader.find_one(&format!("SELECT {column} FROM \"{}\"", kept.table()), &[], |row| row.stored(0))
    };
    let stored = f.node.registry.control().read(read).await.unwrap();
    let stored = stored.unwrap().as_text().unwrap().to_owned();
    assert!(stored.contains("sealed:") && !stored.contains("plain-and-secret"), "{stored}");
    let elsewhere = self::catalog(&f).find("club", None).await.unwrap();
    assert!(!elsewhere.source.to_string().contains("sealed:"), "what another node sealed is left out");
}

#[tokio::test]
async fn a_published_version_stands() {
    let f = fixture().await;
    let catalog = catalog(&f);
    let body = |version: u32| json!({"name": "tiny", "version": version, "title": "Tiny", "collections": [{"name": "things"}]});
    catalog.publish(meta(), &body(1)).await.unwrap();
    assert!(matches!(catalog.publish(meta(), &body(1)).await, Err(BlueprintError::NotNewer { newest: 1, .. })));
    catalog.publish(meta(), &body(3)).await.unwrap();
    assert_eq!(catalog.find("tiny", None).await.unwrap().version, 3);
    assert_eq!(catalog.find("tiny", Some(1)).await.unwrap().version, 1);
    assert!(matches!(catalog.find("tiny", Some(2)).await, Err(BlueprintError::NotFound(_))));
    let names: Vec<_> = catalog.list().await.unwrap().iter().map(|blueprint| blueprint.name.to_string()).collect();
    assert_eq!(names, ["business", "cms", "courses", "tiny", "tournament"]);
    let refused = catalog.publish(meta(), &json!({"name": "tournament", "version": 1, "collections": []})).await;
    assert!(refused.is_err(), "a shipped version stands too");
}

#[tokio::test]
async fn a_new_version_rolls_out_and_back() {
    let f = fixture().await;
    let catalog = catalog(&f);
    let one = json!({"name": "shop", "version": 1, "collections": [
        {"name": "goods", "fields": [{"name": "title", "type": "text"}, {"name": "old", "type": "bool"}]},
        {"name": "shelves", "fields": [{"name": "good", "type": "relation", "collectionId": "goods"}]}]});
    let two = json!({"name": "shop", "version": 2, "collections": [
        {"name": "goods", "fields": [{"name": "title", "type": "text", "max": 99}, {"name": "price", "type": "number"}],
         "indexes": ["CREATE INDEX i_goods_price ON goods (price)"]}]});
    let one = catalog.publish(meta(), &one).await.unwrap().value;
    let two = catalog.publish(meta(), &two).await.unwrap().value;
    for slug in ["shop-a", "shop-b"] {
        let about = BlueprintRef { name: one.name.clone(), version: 1 };
        let contents = blueprints::contents(one.clone(), meta(), f.node.random.clone(), None);
        let wanted = CreateTenant { contents, blueprint: Some(about), ..CreateTenant::plain(slug_of(slug)) };
        f.node.registry.create(meta(), wanted).await.unwrap();
    }
    let open = async |slug: &str| f.node.registry.open_tenant(&f.node.registry.find(slug).unwrap().id).await.unwrap();
    let own = json!({"fields": [{"name": "id", "type": "text"}, {"name": "title", "type": "text"},
        {"name": "old", "type": "bool"}, {"name": "mine", "type": "text"}], "indexes": ["CREATE INDEX i_mine ON goods (mine)"]});
    update(&open("shop-a").await, meta(), f.node.random.clone(), "goods", &own).await.unwrap();
    let fields = |db: &TenantDb| -> Vec<String> {
        let schema = db.schema();
        schema.find("goods").unwrap().fields.iter().map(|field| field.name.to_string()).collect()
    };
    let told = Mutex::new(0);
    let tell = |_: &blueprints::RollOutStep| *told.lock().unwrap() += 1;
    let canary = ["shop-a".to_owned()];
    let roll = async |to: &_, only: Option<&[String]>| {
        blueprints::roll_out(&f.node.registry, &catalog, meta(), to, only, &tell).await.unwrap()
    };
    assert_eq!(roll(&two, Some(&canary)).await, 1);
    assert_eq!(fields(&open("shop-a").await), ["id", "title", "price", "mine"]);
    assert_eq!(fields(&open("shop-b").await), ["id", "title", "old"]);
    assert!(open("shop-a").await.schema().find("shelves").is_none());
    assert_eq!((roll(&two, None).await, roll(&two, None).await), (1, 0));
    assert_eq!(roll(&one, None).await, 2);
    let back = open("shop-a").await;
    assert_eq!(fields(&back), ["id", "title", "old", "mine"]);
    assert!(back.schema().find("shelves").is_some());
    let names: Vec<_> =
        back.schema().find("goods").unwrap().indexes.iter().map(|index| index.name.to_string()).collect();
    assert_eq!(names, ["i_mine"]);
    assert_eq!(*told.lock().unwrap(), 4);
}

#[tokio::test]
async fn progress_is_told() {
    let f = fixture().await;
    let blueprint = crate::schema::blueprint::find_shipped("tournament").unwrap();
    blueprints::apply(&f.tenant, meta(), f.node.random.clone(), &blueprint).await.unwrap();
    let told = Mutex::new(Vec::new());
    let request = SampleRequest { seed: 1, size: SampleSize { tournaments: 10, players: 900, matches: 900 } };
    let progress = |done, total| told.lock().unwrap().push((done, total));
    let clock = f.node.clock.clone();
    let done =
        crate::services::sample::fill(&f.tenant, "tournament", request, clock.as_ref(), &progress).await.unwrap();
    let told = told.into_inner().unwrap();
    assert_eq!(told.last(), Some(&(done, done)));
    assert!(told.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].0 <= pair[0].1), "{told:?}");
}
