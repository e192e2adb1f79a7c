//! Registrations that wait: which go where there are too many, and what those cost that get no mail.

use super::*;
use crate::kernel::ident::RecordId;
use crate::kernel::limits;
use crate::schema::Collection;
use crate::schema::record::RecordImage;
use crate::services::login_guard::GuessRefused;
use crate::services::records::preparing;
use crate::services::records::registering::{self, CountMail, MailGate};
use crate::services::tenants::system;
use crate::store::WriteTx;
use std::sync::atomic::AtomicBool;

async fn quiet(manage: Value) -> World {
    let users = json!({"name": "users", "type": "auth", "quietRegistration": {"enabled": true}, "createRule": "",
        "updateRule": "id = @request.auth.id", "manageRule": manage, "fields": [{"name": "boss", "type": "bool"}]});
    let world = World::new(&[users]).await;
    let wanted = system::tenant_collections(world.clock.now_ms());
    let plan = system::plan_missing(&world.db.schema(), wanted).unwrap();
    world.db.write(WriteMeta::system("test"), move |tx| tx.apply_schema(&plan)).await.unwrap();
    world
}

impl World {
    /// Keeps a registration from each of `ips`, a second after those before; their rows.
    async fn keep(&self, ips: Vec<String>) -> Vec<RecordId> {
        self.clock.advance_ms(1_000);
        let random = Arc::clone(&self.random);
        let kept = self.db.write(WriteMeta::system("test"), move |tx| {
            let accounts = tx.schema().find("users").cloned().unwrap();
            ips.iter().map(|ip| keep_one(tx, &accounts, ip, random.as_ref())).collect::<Result<Vec<_>, _>>()
        });
        kept.await.unwrap().value
    }

    /// The rows that are there.
    async fn waiting(&self) -> std::collections::BTreeSet<String> {
        let found = self.db.read(|reader| {
            let table = reader.schema().find(system::REGISTRATIONS).unwrap().table();
            let mut ids = std::collections::BTreeSet::new();
            reader.for_each(&format!("SELECT id FROM \"{table}\""), &[], &mut |row| {
                ids.extend(row.stored(0)?.as_text().map(str::to_owned));
                Ok(())
            })?;
            Ok::<_, RecordError>(ids)
        });
        found.await.unwrap()
    }

    /// Which of `rows` are there.
    async fn kept(&self, rows: &[RecordId]) -> Vec<bool> {
        let waiting = self.waiting().await;
        rows.iter().map(|id| waiting.contains(id.as_str())).collect()
    }
}

fn keep_one(
    tx: &mut WriteTx<'_>,
    accounts: &Collection,
    ip: &str,
    random: &dyn Random,
) -> Result<RecordId, RecordError> {
    registering::keep(tx, accounts, &RecordImage::new(RecordId::generate(random), []), Some(ip), random)
}

fn texts(ips: &[&str]) -> Vec<String> {
    ips.iter().map(|ip| (*ip).to_owned()).collect()
}

#[tokio::test]
async fn a_flood_of_registrations_from_one_place_pushes_out_itself_alone() {
    let world = quiet(json!(null)).await;
    let others = world.keep(texts(&["10.0.0.1", "10.0.0.2", "2001:db8:0:1::1"])).await;
    // One subscriber has a /64 of addresses.
    let flood = (0..limits::REGISTRATIONS_MAX - others.len()).map(|number| format!("2001:db8::{number:x}"));
    let flood = world.keep(flood.collect()).await;
    assert_eq!(world.waiting().await.len(), limits::REGISTRATIONS_MAX, "what fits is kept");

    world.keep(texts(&["2001:db8::ffff:1"])).await;
    assert_eq!(world.kept(&flood[..3]).await, [false, true, true], "its own oldest goes");
    let late = world.keep(texts(&["10.0.0.3"])).await;
    assert_eq!(world.kept(&flood[..3]).await, [false, false, true], "and makes room for others");
    assert_eq!(world.kept(&others).await, [true; 3]);
    assert_eq!(world.kept(&late).await, [true]);
    assert_eq!(world.waiting().await.len(), limits::REGISTRATIONS_MAX);

    // What is over goes before what still waits: here those of the others, which were first.
    world.clock.advance_ms(259_200_000 - 3_000);
    let late = world.keep(texts(&["10.0.0.4"])).await;
    assert_eq!(world.kept(&flood[..3]).await, [false, false, true]);
    assert_eq!(world.kept(&others).await, [false, true, true]);
    assert_eq!(world.kept(&late).await, [true]);
    world.stop().await;
}

#[tokio::test]
async fn a_flood_of_registrations_from_everywhere_pushes_out_the_oldest() {
    let world = quiet(json!(null)).await;
    let mut first = world.keep(texts(&["192.0.2.1"])).await;
    first.extend(world.keep(texts(&["192.0.2.2"])).await);
    let address = |number: usize| std::net::Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(number).unwrap());
    let rest = (first.len()..limits::REGISTRATIONS_MAX).map(|number| address(number).to_string());
    let rest = world.keep(rest.collect()).await;
    world.keep(texts(&["192.0.2.3"])).await;
    assert_eq!(world.kept(&first).await, [false, true]);
    world.keep(texts(&["192.0.2.4", "192.0.2.5"])).await;
    assert_eq!(world.kept(&first).await, [false, false]);
    let gone = world.kept(&rest).await.into_iter().filter(|kept| !kept).count();
    assert_eq!(gone, 1, "then one of those that came next");
    world.stop().await;
}

/// Mails that run out and come back.
#[derive(Default)]
struct Tap {
    closed: AtomicBool,
    /// Opens when it was looked at so often.
    opens_after: AtomicUsize,
    asked: AtomicUsize,
}

impl Tap {
    fn answer(&self) -> Result<(), GuessRefused> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(GuessRefused { message: String::new(), retry_after_s: 1 });
        }
        Ok(())
    }
}

impl CountMail for Tap {
    fn ask(&self, _: &str) -> Result<(), GuessRefused> {
        self.answer()?;
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn look(&self, _: &str) -> Result<(), GuessRefused> {
        let answer = self.answer();
        if self.opens_after.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.closed.store(false, Ordering::Relaxed);
        }
        answer
    }
}

fn registration(caller: &Caller, tap: &Arc<Tap>) -> WriteRequest {
    let body = json!({"email": "ada@x.test", "password": "12 blue horses", "passwordConfirm": "12 blue horses"});
    let mut request = caller.request(WriteVerb::Create, "users", None, body);
    request.source = WriteSource::Alone;
    request.mail_gate = Some(MailGate::new(Arc::clone(tap) as Arc<dyn CountMail>));
    request
}

#[tokio::test]
async fn a_registration_that_gets_no_mail_costs_no_hash() {
    let world = quiet(json!("@request.auth.boss = true")).await;
    let (admin, guest, tap) = (world.admin(), world.guest(), Arc::new(Tap::default()));
    let boss = json!({"email": "boss@x.test", "password": "12 blue horses", "passwordConfirm": "12 blue horses", "boss": true});
    let boss = admin.create("users", boss).await["id"].as_str().unwrap().to_owned();
    let boss = world.user("users", &boss).await;
    let costs = async |caller: &Caller, request: WriteRequest| {
        !preparing::prepare_alone(&caller.0, &request).await.unwrap().is_left_out()
    };
    assert!(costs(&guest, registration(&guest, &tap)).await);
    let same = |guest: &Caller| key("k", guest, "body");
    let made = write::write(&guest.0, registration(&guest, &tap), Some(same(&guest))).await.unwrap();
    assert_eq!((world.waiting().await.len(), tap.asked.load(Ordering::Relaxed)), (1, 1));

    // Trying asks for no mail, but past the limit it would be a way to a hash each.
    let tried = |caller: &Caller, tap: &Arc<Tap>| WriteRequest { dry_run: true, ..registration(caller, tap) };
    write::write(&guest.0, tried(&guest, &tap), None).await.unwrap();
    assert_eq!(tap.asked.load(Ordering::Relaxed), 1);

    tap.closed.store(true, Ordering::Relaxed);
    for request in [registration(&guest, &tap), tried(&guest, &tap)] {
        assert!(!costs(&guest, request.clone()).await);
        assert_eq!(code(write::write(&guest.0, request, None).await), Code::RateLimited);
    }
    // What was answered is answered again, and whoever manages accounts asks for no mail.
    let again = write::write(&guest.0, registration(&guest, &tap), Some(same(&guest))).await.unwrap();
    assert!(again.replayed && again.done.answer == made.done.answer);
    assert!(costs(&boss, registration(&boss, &tap)).await && costs(&admin, registration(&admin, &tap)).await);

    // Mails that come back between the look and the write.
    tap.opens_after.store(1, Ordering::Relaxed);
    write::write(&guest.0, registration(&guest, &tap), None).await.unwrap();
    assert_eq!((world.waiting().await.len(), tap.asked.load(Ordering::Relaxed)), (2, 2));
    world.stop().await;
}

#[tokio::test]
async fn nobody_registers_in_a_batch_and_its_passwords_cost_nothing() {
    let world = quiet(json!(null)).await;
    let (admin, guest, tap) = (world.admin(), world.guest(), Arc::new(Tap::default()));
    let listed =
        |caller: &Caller| WriteRequest { source: WriteSource::Caller, mail_gate: None, ..registration(caller, &tap) };
    assert!(preparing::prepare(&guest.0, &listed(&guest)).await.unwrap().is_left_out());
    assert!(!preparing::prepare(&admin.0, &listed(&admin)).await.unwrap().is_left_out());
    let batch = |method: &str, id: &str, email: &str| {
        let mut body = listed(&guest).body;
        body.extend([("id".to_owned(), json!(id)), ("email".to_owned(), json!(email))]);
        json!({"requests": [{"method": method, "url": "/api/collections/users/records", "body": body}]})
    };
    let (ada, eve) = ("adaadaadaadaada", "eveeveeveeveeve");
    for (method, id, email) in [("POST", ada, "ada@x.test"), ("PUT", eve, "eve@x.test")] {
        let told = refused(guest.batch(batch(method, id, email), BatchOptions::default()).await);
        assert!(told.iter().any(|(_, code)| code == "validation_registration_alone"), "{method}: {told:?}");
        admin.batch(batch(method, id, email), BatchOptions::default()).await.unwrap();
    }
    // A record to put is made where it is not there and changed where it is: strangers may do neither, owners the latter.
    let put = |caller: &Caller, id: &str| {
        let mut request = WriteRequest { verb: WriteVerb::Upsert, ..listed(caller) };
        request.body.insert("id".to_owned(), json!(id));
        request
    };
    let herself = world.user("users", ada).await;
    for id in [ada, "nobodynobody123"] {
        assert!(preparing::prepare(&guest.0, &put(&guest, id)).await.unwrap().is_left_out(), "{id}");
        assert!(preparing::prepare_alone(&guest.0, &put(&guest, id)).await.unwrap().is_left_out(), "{id}");
    }
    for caller in [&herself, &admin] {
        assert!(!preparing::prepare(&caller.0, &put(caller, ada)).await.unwrap().is_left_out());
    }
    // Nor may somebody who is logged in: what is there of others, and what is not there, costs the same nothing.
    for (caller, id, costs) in [
        (&herself, ada, true),
        (&herself, "nobodynobody123", false),
        (&herself, eve, false),
        (&admin, "nobodynobody123", true),
    ] {
        let item = BatchRequest::parse(batch("PUT", id, "eve@x.test")).unwrap().items.remove(0).into_item().unwrap();
        assert_eq!(!batch::prepare(&caller.0, &item).await.unwrap().is_left_out(), costs, "{id}");
    }
    world.stop().await;
}
