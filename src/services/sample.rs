//! Sample data for the tournament blueprint: the same seed and moment give the same records, invented here.
//!
//! Keeps true: rows arrive in batches through the tenant's writer like anybody's writes, so log, clocks and indexes are
//! those of real use; nothing in a sample can log in. Does not do: checking values (a test runs the checks over a sample).

use crate::kernel::clock::Clock;
use crate::kernel::datetime::format_ms;
use crate::kernel::ident::{FieldNumber, RecordId};
use crate::kernel::random::{self, Random, SeededRandom};
use crate::kernel::value::Stored;
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema};
use crate::store::{Actor, StoreError, TenantDb, WriteMeta};
use std::sync::Arc;

/// How much to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleSize {
    /// Tournaments, at least 1.
    pub tournaments: usize,
    /// Players over all tournaments.
    pub players: usize,
    /// Matches over all tournaments.
    pub matches: usize,
}

impl SampleSize {
    /// The size of `serve --demo`.
    pub const DEMO: SampleSize = SampleSize { tournaments: 200, players: 20_000, matches: 20_000 };
}

const ORGANISATIONS: usize = 12;
const USERS: usize = 400;
const BATCH_LEN: usize = 1_000;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

const GIVEN: &[&str] = &[
    "Amara", "Bruno", "Chiara", "Dmitri", "Elif", "Farid", "Greta", "Hiro", "Ines", "Jonas", "Kaya", "Lorenzo", "Mina",
    "Nadia", "Oskar", "Priya", "Quentin", "Rosa", "Soren", "Tariq", "Uma", "Viktor", "Wanda", "Ximena", "Yusuf",
    "Zofia",
];
const FAMILY: &[&str] = &[
    "Abbott",
    "Brandt",
    "Castillo",
    "Dahl",
    "Eriksen",
    "Fontaine",
    "Grimaldi",
    "Haddad",
    "Ivanova",
    "Jansen",
    "Kowalski",
    "Lindqvist",
    "Moreau",
    "Nakamura",
    "Okafor",
    "Petrov",
    "Quiroga",
    "Rossi",
    "Santos",
    "Tanaka",
    "Ueda",
    "Varga",
    "Weiss",
];
const PLACES: &[&str] = &[
    "Harbour Hall",
    "Old Foundry",
    "Riverside Club",
    "Station Loft",
    "North Pier",
    "Glass House",
    "Market Arcade",
    "Lighthouse Room",
    "Castle Cellar",
    "Garden Pavilion",
];
const SEASONS: &[&str] =
    &["Spring", "Summer", "Autumn", "Winter", "Midnight", "Sunday", "Grand", "Rookie", "Masters", "Charity"];
const EVENTS: &[&str] = &["Open", "Cup", "Classic", "Invitational", "Series", "Showdown", "Festival", "League"];
const GUILDS: &[&str] = &[
    "Falcon", "Juniper", "Cobalt", "Meridian", "Saffron", "Granite", "Willow", "Comet", "Ember", "Delta", "Orchid",
    "Tundra",
];
const COUNTRIES: &[&str] = &["DE", "FR", "IT", "ES", "PL", "SE", "NO", "JP", "BR", "CA", "NG", "PT"];

/// Fills `tenant`, made from the tournament blueprint, and tells `progress` how many records of how many are written.
///
/// # Errors
/// What the store refuses; batches that were acknowledged stay.
pub(crate) async fn fill_tournament(
    tenant: &TenantDb,
    seed: u64,
    clock: &dyn Clock,
    size: SampleSize,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<usize, StoreError> {
    let rows = Generator::new(tenant.schema(), seed, clock.now_ms()).run(size);
    let total = rows.len();
    let mut done = 0;
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let batch: Vec<_> = rows.by_ref().take(BATCH_LEN).collect();
        done += batch.len();
        let meta = WriteMeta { actor: Actor::System, request_id: Arc::from("sample"), ip: None };
        tenant
            .write(meta, move |tx| batch.iter().try_for_each(|(collection, record)| tx.insert(collection, record)))
            .await
            .map(drop)?;
        progress(done, total);
    }
    Ok(total)
}

type Row = (Arc<Collection>, RecordImage);

/// Draws records; a collection or field that the schema lacks is left out.
struct Generator {
    schema: Arc<Schema>,
    random: SeededRandom,
    now_ms: i64,
    rows: Vec<Row>,
}

impl Generator {
    fn new(schema: Arc<Schema>, seed: u64, now_ms: i64) -> Self {
        Self { schema, random: SeededRandom::new(seed), now_ms, rows: Vec::new() }
    }

    fn run(mut self, size: SampleSize) -> Vec<Row> {
        let users = self.users();
        let organisations = self.organisations(&users);
        self.members(&organisations, &users);
        let tournaments = size.tournaments.max(1);
        for number in 0..tournaments {
            let players = share(size.players, tournaments, number);
            let matches = share(size.matches, tournaments, number);
            self.tournament(number, &organisations, &users, players, matches);
        }
        self.rows
    }

    fn draw(&self, bound: usize) -> usize {
        usize::try_from(random::below(&self.random, bound as u64)).unwrap_or(0)
    }

    fn pick<'list, T: ?Sized>(&self, list: &[&'list T]) -> &'list T {
        list.get(self.draw(list.len())).copied().expect("invariant: word lists are not empty")
    }

    fn pick_id(&self, list: &[RecordId]) -> String {
        list.get(self.draw(list.len())).map(|id| id.as_str().to_owned()).unwrap_or_default()
    }

    fn person(&self) -> String {
        format!("{} {}", self.pick(GIVEN), self.pick(FAMILY))
    }

    /// Adds one record and returns its id; `created` and `updated` are set to `at_ms`.
    fn add(&mut self, collection: &str, at_ms: i64, values: Vec<(&str, Stored)>) -> RecordId {
        let id = RecordId::generate(&self.random);
        let Some(collection) = self.schema.find(collection).cloned() else { return id };
        let moment = Stored::from(format_ms(at_ms));
        let stamped = values.into_iter().chain([("created", moment.clone()), ("updated", moment)]);
        let numbered: Vec<(FieldNumber, Stored)> = stamped
            .filter_map(|(name, value)| collection.find_field(name).map(|field| (field.number, value)))
            .collect();
        self.rows.push((collection, RecordImage::new(id.clone(), numbered)));
        id
    }

    fn users(&mut self) -> Vec<RecordId> {
        (0..USERS)
            .map(|number| {
                let name = self.person();
                let email = format!("{}{number}@players.example", name.to_lowercase().replace(' ', "."));
                let key = random::lowercase_id(&self.random, 50);
                self.add(
                    "users",
                    self.now_ms - 200 * DAY_MS,
                    vec![
                        ("name", name.into()),
                        ("email", email.into()),
                        ("tokenKey", key.into()),
                        ("verified", Stored::bool(number % 3 != 0)),
                        ("locale", "en".into()),
                    ],
                )
            })
            .collect()
    }

    fn organisations(&mut self, users: &[RecordId]) -> Vec<RecordId> {
        (0..ORGANISATIONS)
            .map(|number| {
                let guild = GUILDS.get(number).copied().unwrap_or("Nova");
                self.add(
                    "organisations",
                    self.now_ms - 190 * DAY_MS,
                    vec![
                        ("name", format!("{guild} Card Club").into()),
                        ("slug", format!("{}-card-club", guild.to_lowercase()).into()),
                        ("country", self.pick(COUNTRIES).into()),
                        ("website", format!("https://{}.example", guild.to_lowercase()).into()),
                        ("owner", users.get(number).map(|id| id.as_str().to_owned()).unwrap_or_default().into()),
                    ],
                )
            })
            .collect()
    }

    fn members(&mut self, organisations: &[RecordId], users: &[RecordId]) {
        const ROLES: &[&str] = &["admin", "director", "director", "member", "member", "member", "viewer"];
        for (number, organisation) in organisations.iter().enumerate() {
            for (place, user) in users.iter().skip(number).step_by(ORGANISATIONS).enumerate() {
                let role =
                    if place == 0 { "owner" } else { ROLES.get(place % ROLES.len()).copied().unwrap_or("member") };
                self.add(
                    "members",
                    self.now_ms - 180 * DAY_MS,
                    vec![
                        ("organisation", organisation.as_str().into()),
                        ("user", user.as_str().into()),
                        ("role", role.into()),
                    ],
                );
            }
        }
    }

    fn tournament(
        &mut self,
        number: usize,
        organisations: &[RecordId],
        users: &[RecordId],
        players: usize,
        matches: usize,
    ) {
        let status = match number % 10 {
            0 => "draft",
            1 | 2 => "registration",
            3 | 4 => "running",
            9 => "cancelled",
            _ => "completed",
        };
        let offset_days = match status {
            "running" => 0,
            "completed" | "cancelled" => -1 - i64::try_from(self.draw(170)).unwrap_or(0),
            _ => 1 + i64::try_from(self.draw(60)).unwrap_or(0),
        };
        let starts = self.now_ms + offset_days * DAY_MS - self.now_ms % HOUR_MS;
        let buy_in = [10.0, 20.0, 50.0, 100.0, 250.0].get(self.draw(5)).copied().unwrap_or(10.0);
        let format = self.pick(&["freezeout", "rebuy", "knockout", "swiss", "round_robin"]);
        #[expect(clippy::cast_precision_loss, reason = "counts below 2^52")]
        let head_count = players as f64;
        let name = format!("{} {} {} {}", self.pick(PLACES), self.pick(SEASONS), self.pick(EVENTS), number + 1);
        let venue = self.pick(PLACES);
        let organisation = self.pick_id(organisations);
        let tournament = self.add(
            "tournaments",
            starts - 30 * DAY_MS,
            vec![
                ("organisation", organisation.into()),
                ("name", name.into()),
                (
                    "description",
                    format!("<p>A {format} evening at {venue}. Doors open one hour before the first hand.</p>").into(),
                ),
                ("status", status.into()),
                ("format", format.into()),
                ("starts", format_ms(starts).into()),
                ("ends", if status == "completed" { format_ms(starts + 6 * HOUR_MS) } else { String::new() }.into()),
                ("venue", venue.into()),
                ("buy_in", buy_in.into()),
                ("prize_pool", (buy_in * head_count).into()),
                ("capacity", (head_count + 20.0).into()),
                ("starting_chips", 10_000.0.into()),
            ],
        );
        let entered = self.players(&tournament, users, players, status, starts);
        self.matches(&tournament, &entered, matches, status, starts);
        if status == "completed" {
            self.leaderboard(&tournament, &entered, buy_in * head_count, starts);
        }
    }

    fn players(
        &mut self,
        tournament: &RecordId,
        users: &[RecordId],
        count: usize,
        status: &str,
        starts: i64,
    ) -> Vec<RecordId> {
        let first_user = self.draw(USERS);
        (0..count)
            .map(|number| {
                let state = match (status, number % 4) {
                    ("running", 0) => "playing",
                    ("running" | "completed", _) => "eliminated",
                    (_, 3) => "checked_in",
                    _ => "registered",
                };
                let chips = if status == "running" || status == "completed" { self.draw(400) * 250 } else { 10_000 };
                let user = if number < USERS / 2 { users.get((first_user + number) % USERS) } else { None };
                #[expect(clippy::cast_precision_loss, reason = "small counts")]
                self.add(
                    "players",
                    starts - 20 * DAY_MS,
                    vec![
                        ("tournament", tournament.as_str().into()),
                        ("user", user.map(|id| id.as_str().to_owned()).unwrap_or_default().into()),
                        ("display_name", self.person().into()),
                        ("status", state.into()),
                        ("chips", (chips as f64).into()),
                        ("table_no", ((number / 9 + 1) as f64).into()),
                        ("seat", ((number % 9 + 1) as f64).into()),
                        (
                            "registered_at",
                            format_ms(starts - 10 * DAY_MS + i64::try_from(number).unwrap_or(0) * 60_000).into(),
                        ),
                    ],
                )
            })
            .collect()
    }

    fn matches(&mut self, tournament: &RecordId, players: &[RecordId], count: usize, status: &str, starts: i64) {
        for number in 0..count {
            let a = self.pick_id(players);
            let b = self.pick_id(players);
            let done = status == "completed" || (status == "running" && number % 2 == 0);
            let at = starts + i64::try_from(number).unwrap_or(0) * 5 * 60_000;
            let (score_a, score_b) = if done { (self.draw(5), self.draw(5)) } else { (0, 0) };
            let winner = if !done {
                String::new()
            } else if score_a >= score_b {
                a.clone()
            } else {
                b.clone()
            };
            #[expect(clippy::cast_precision_loss, reason = "small counts")]
            self.add(
                "matches",
                starts - DAY_MS,
                vec![
                    ("tournament", tournament.as_str().into()),
                    ("round", ((number / 16 + 1) as f64).into()),
                    ("bracket", if number % 3 == 0 { "lower" } else { "upper" }.into()),
                    ("table_no", ((number % 12 + 1) as f64).into()),
                    ("player_a", a.into()),
                    ("player_b", b.into()),
                    ("winner", winner.into()),
                    ("status", if done { "completed" } else { "scheduled" }.into()),
                    ("score_a", (score_a as f64).into()),
                    ("score_b", (score_b as f64).into()),
                    ("scheduled_at", format_ms(at).into()),
                    ("completed_at", if done { format_ms(at + 4 * 60_000) } else { String::new() }.into()),
                ],
            );
        }
    }

    fn leaderboard(&mut self, tournament: &RecordId, players: &[RecordId], pool: f64, starts: i64) {
        for (place, player) in players.iter().take(20).enumerate() {
            #[expect(clippy::cast_precision_loss, reason = "at most 20")]
            let place = place as f64;
            self.add(
                "leaderboards",
                starts + 6 * HOUR_MS,
                vec![
                    ("tournament", tournament.as_str().into()),
                    ("player", player.as_str().into()),
                    ("position", (place + 1.0).into()),
                    ("points", (1_000.0 - 37.0 * place).into()),
                    ("prize", (pool * 0.3 / (place + 1.0)).floor().into()),
                ],
            );
        }
    }
}

/// The part of `whole` that the `index`-th of `parts` gets, so that all parts add up to `whole`.
fn share(whole: usize, parts: usize, index: usize) -> usize {
    whole / parts + usize::from(index < whole % parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for (whole, parts) in [(20_000, 200), (7, 3), (0, 4), (5, 9)] {
            assert_eq!((0..parts).map(|index| share(whole, parts, index)).sum::<usize>(), whole);
        }
    }
}
