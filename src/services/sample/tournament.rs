//! Sample data for the tournament blueprint: organisations, their people, tournaments with players, matches and results.
//!
//! Keeps true: the same schema, seed and moment give the same records; a collection or field that the schema lacks is
//! left out. Does not do: writing them (that is the parent), checking values (a test runs the checks over a sample).

use super::words::{COUNTRIES, EVENTS, GUILDS, PLACES, SEASONS};
use super::{DAY_MS, HOUR_MS, Maker, Row, person};
use crate::kernel::datetime::format_ms;
use crate::kernel::ident::RecordId;
use crate::kernel::random;
use crate::kernel::value::Stored;
use crate::schema::Schema;
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
const PLACES_PAID: usize = 20;

/// Draws the records in an order in which every relation points backwards.
pub(super) struct Tournaments {
    maker: Maker,
    size: SampleSize,
    users: Vec<RecordId>,
    organisations: Vec<RecordId>,
    next: usize,
}

impl Tournaments {
    pub(super) fn new(schema: Arc<Schema>, seed: u64, now_ms: i64, size: SampleSize) -> Self {
        let size = SampleSize { tournaments: size.tournaments.max(1), ..size };
        Self { maker: Maker::new(schema, seed, now_ms), size, users: Vec::new(), organisations: Vec::new(), next: 0 }
    }

    /// About how many records there will be.
    pub(super) fn expected(&self) -> usize {
        let paid = PLACES_PAID.min(self.size.players / self.size.tournaments);
        2 * USERS + ORGANISATIONS + self.size.players + self.size.matches + self.size.tournaments * (5 + paid / 2)
    }

    /// The next few records; empty at the end.
    pub(super) fn next_rows(&mut self) -> Vec<Row> {
        if self.users.is_empty() {
            self.users = self.users();
            self.organisations = self.organisations();
            self.members();
        } else if self.next < self.size.tournaments {
            let (number, parts) = (self.next, self.size.tournaments);
            self.next += 1;
            self.tournament(number, share(self.size.players, parts, number), share(self.size.matches, parts, number));
        }
        self.maker.take()
    }

    fn users(&mut self) -> Vec<RecordId> {
        (0..USERS)
            .map(|number| {
                let name = person(&self.maker);
                let email = format!("{}{number}@players.example", name.to_lowercase().replace(' ', "."));
                let key = random::lowercase_id(self.maker.random(), 50);
                self.maker.add(
                    "users",
                    self.maker.now_ms - 200 * DAY_MS,
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

    fn organisations(&mut self) -> Vec<RecordId> {
        (0..ORGANISATIONS)
            .map(|number| {
                let guild = GUILDS.get(number).copied().unwrap_or("Nova");
                let owner = self.users.get(number).map(|id| id.as_str().to_owned()).unwrap_or_default();
                let country = self.maker.pick(COUNTRIES);
                self.maker.add(
                    "organisations",
                    self.maker.now_ms - 190 * DAY_MS,
                    vec![
                        ("name", format!("{guild} Card Club").into()),
                        ("slug", format!("{}-card-club", guild.to_lowercase()).into()),
                        ("country", country.into()),
                        ("website", format!("https://{}.example", guild.to_lowercase()).into()),
                        ("owner", owner.into()),
                    ],
                )
            })
            .collect()
    }

    fn members(&mut self) {
        const ROLES: &[&str] = &["admin", "director", "director", "member", "member", "member", "viewer"];
        for (number, organisation) in self.organisations.clone().iter().enumerate() {
            for (place, user) in self.users.clone().iter().skip(number).step_by(ORGANISATIONS).enumerate() {
                let role =
                    if place == 0 { "owner" } else { ROLES.get(place % ROLES.len()).copied().unwrap_or("member") };
                self.maker.add(
                    "members",
                    self.maker.now_ms - 180 * DAY_MS,
                    vec![
                        ("organisation", organisation.as_str().into()),
                        ("user", user.as_str().into()),
                        ("role", role.into()),
                    ],
                );
            }
        }
    }

    fn tournament(&mut self, number: usize, players: usize, matches: usize) {
        let status = match number % 10 {
            0 => "draft",
            1 | 2 => "registration",
            3 | 4 => "running",
            9 => "cancelled",
            _ => "completed",
        };
        let offset_days = match status {
            "running" => 0,
            "completed" | "cancelled" => -1 - i64::try_from(self.maker.draw(170)).unwrap_or(0),
            _ => 1 + i64::try_from(self.maker.draw(60)).unwrap_or(0),
        };
        let starts = self.maker.now_ms + offset_days * DAY_MS - self.maker.now_ms % HOUR_MS;
        let buy_in = [10.0, 20.0, 50.0, 100.0, 250.0].get(self.maker.draw(5)).copied().unwrap_or(10.0);
        let format = self.maker.pick(&["freezeout", "rebuy", "knockout", "swiss", "round_robin"]);
        #[expect(clippy::cast_precision_loss, reason = "counts below 2^52")]
        let head_count = players as f64;
        let name = format!(
            "{} {} {} {}",
            self.maker.pick(PLACES),
            self.maker.pick(SEASONS),
            self.maker.pick(EVENTS),
            number + 1
        );
        let venue = self.maker.pick(PLACES);
        let organisation = self.maker.pick_id(&self.organisations);
        let tournament = self.maker.add(
            "tournaments",
            starts - 30 * DAY_MS,
            vec![
                ("organisation", organisation.as_str().into()),
                ("name", name.as_str().into()),
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
        let entered = self.players(&tournament, players, status, starts);
        self.matches(&tournament, &entered, matches, status, starts);
        if status == "completed" {
            self.leaderboard(&tournament, &entered, buy_in * head_count, starts);
        }
        self.paperwork(&tournament, &organisation, &format!("{name}: {status}"), buy_in, starts);
    }

    fn players(&mut self, tournament: &RecordId, count: usize, status: &str, starts: i64) -> Vec<RecordId> {
        let first_user = self.maker.draw(USERS);
        (0..count)
            .map(|number| {
                let (state, chips, place) = match (status, number % 4) {
                    ("running", 0) => ("eliminated", 0, count - number / 4),
                    ("running", _) => ("playing", 500 + self.maker.draw(400) * 250, 0),
                    ("completed", _) => ("eliminated", if number == 0 { count * 10_000 } else { 0 }, number + 1),
                    ("draft" | "registration", 3) => ("registered", 0, 0),
                    ("cancelled", _) => ("withdrawn", 0, 0),
                    _ => ("checked_in", 10_000, 0),
                };
                // Guests beyond the known users have a name and no account.
                let user = if number < USERS / 2 { self.users.get((first_user + number) % USERS) } else { None };
                let user = user.map(|id| id.as_str().to_owned()).unwrap_or_default();
                let registered = starts - 10 * DAY_MS + i64::try_from(number).unwrap_or(0) * 60_000;
                #[expect(clippy::cast_precision_loss, reason = "small counts")]
                self.maker.add(
                    "players",
                    registered,
                    vec![
                        ("tournament", tournament.as_str().into()),
                        ("user", user.into()),
                        ("display_name", person(&self.maker).into()),
                        ("status", state.into()),
                        ("chips", (chips as f64).into()),
                        ("place", (place as f64).into()),
                        ("table_no", ((number / 9 + 1) as f64).into()),
                        ("seat", ((number % 9 + 1) as f64).into()),
                        ("registered_at", format_ms(registered).into()),
                    ],
                )
            })
            .collect()
    }

    fn matches(&mut self, tournament: &RecordId, players: &[RecordId], count: usize, status: &str, starts: i64) {
        for number in 0..count {
            // Two different players: the second sits some seats further.
            let first = self.maker.draw(players.len());
            let second = first + 1 + self.maker.draw(players.len().saturating_sub(1));
            let seat =
                |at: usize| players.get(at % players.len().max(1)).map(|id| id.as_str().to_owned()).unwrap_or_default();
            let (a, b) = (seat(first), seat(second));
            let done = status == "completed" || (status == "running" && number % 2 == 0);
            let at = starts + i64::try_from(number).unwrap_or(0) * 5 * 60_000;
            let (score_a, score_b) = if done { (self.maker.draw(5), self.maker.draw(5)) } else { (0, 0) };
            let winner = if !done {
                String::new()
            } else if score_a >= score_b {
                a.clone()
            } else {
                b.clone()
            };
            #[expect(clippy::cast_precision_loss, reason = "small counts")]
            self.maker.add(
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
        for (place, player) in players.iter().take(PLACES_PAID).enumerate() {
            #[expect(clippy::cast_precision_loss, reason = "at most 20")]
            let place = place as f64;
            self.maker.add(
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

    /// A payment, a notification and an audit entry, as an evening leaves them behind.
    fn paperwork(&mut self, tournament: &RecordId, organisation: &str, title: &str, amount: f64, starts: i64) {
        let user = self.maker.pick_id(&self.users);
        let reference = format!("T-{}", tournament.as_str().to_uppercase());
        let status = self.maker.pick(&["paid", "paid", "paid", "pending", "refunded"]);
        self.maker.add(
            "payments",
            starts - 9 * DAY_MS,
            vec![
                ("organisation", organisation.into()),
                ("tournament", tournament.as_str().into()),
                ("user", user.as_str().into()),
                ("amount", amount.into()),
                ("currency", "EUR".into()),
                ("status", status.into()),
                ("reference", reference.into()),
            ],
        );
        self.maker.add(
            "notifications",
            starts - DAY_MS,
            vec![
                ("user", user.as_str().into()),
                ("kind", "info".into()),
                ("title", title.into()),
                ("body", format!("It starts on {}.", format_ms(starts)).into()),
                ("read", Stored::bool(amount > 20.0)),
            ],
        );
        self.maker.add(
            "audit_log",
            starts - 30 * DAY_MS,
            vec![
                ("organisation", organisation.into()),
                ("user", user.into()),
                ("action", "tournament.create".into()),
                ("subject", title.into()),
                ("detail", "{\"source\":\"sample\"}".into()),
                ("at", format_ms(starts - 30 * DAY_MS).into()),
            ],
        );
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
