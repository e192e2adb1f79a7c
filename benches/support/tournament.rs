//! The tournament data of the yardstick: the same shape and amounts as the demo tenant, in plain typed tables.
//!
//! Keeps true: columns, indexes and value lengths follow the `tournament` blueprint, so bodies are of like size.
//! Does not do: rules, log, clocks; those are what the comparison prices.

use super::rng::Rng;
use rusqlite::{Connection, params};
use std::path::Path;

/// Tournaments of the sample data.
pub(crate) const TOURNAMENTS: usize = 200;
/// Players of the sample data.
pub(crate) const PLAYERS: usize = 20_000;
/// Matches of the sample data.
pub(crate) const MATCHES: usize = 20_000;

/// The columns of a player after `id`, in the order of the answer, and whether each is a number.
pub(crate) const PLAYER_COLUMNS: [(&str, bool); 11] = [
    ("tournament", false),
    ("user", false),
    ("display_name", false),
    ("status", false),
    ("chips", true),
    ("table_no", true),
    ("seat", true),
    ("place", true),
    ("registered_at", false),
    ("created", false),
    ("updated", false),
];

const SCHEMA: &str = "
CREATE TABLE tournaments (_r INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, status TEXT NOT NULL,
  starts TEXT NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL) STRICT;
CREATE INDEX tournaments_status ON tournaments(status);
CREATE INDEX tournaments_starts ON tournaments(starts);
CREATE TABLE players (_r INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, tournament TEXT NOT NULL, user TEXT NOT NULL,
  display_name TEXT NOT NULL, status TEXT NOT NULL, chips REAL NOT NULL, table_no REAL NOT NULL, seat REAL NOT NULL,
  place REAL NOT NULL, registered_at TEXT NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL) STRICT;
CREATE INDEX players_tournament_status ON players(tournament, status);
CREATE UNIQUE INDEX players_tournament_user ON players(tournament, user) WHERE user != '';
CREATE INDEX players_tournament_chips ON players(tournament, chips DESC);
CREATE INDEX players_chips ON players(chips DESC);
CREATE INDEX players_tournament_table ON players(tournament, table_no, seat);
CREATE INDEX players_user ON players(user);
CREATE VIRTUAL TABLE players_fts USING fts5(display_name, content='players', content_rowid='_r',
  tokenize='unicode61 remove_diacritics 2');
CREATE TRIGGER players_fts_insert AFTER INSERT ON players BEGIN
  INSERT INTO players_fts(rowid, display_name) VALUES (new._r, new.display_name);
END;
CREATE TABLE matches (_r INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, tournament TEXT NOT NULL, round REAL NOT NULL,
  table_no REAL NOT NULL, player_a TEXT NOT NULL, player_b TEXT NOT NULL, winner TEXT NOT NULL, status TEXT NOT NULL,
  completed_at TEXT NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL) STRICT;
CREATE INDEX matches_tournament_table ON matches(tournament, table_no);
CREATE INDEX matches_completed ON matches(completed_at DESC);
CREATE INDEX matches_player_a ON matches(player_a);
CREATE INDEX matches_player_b ON matches(player_b);
CREATE INDEX matches_winner ON matches(winner);
";

/// What the requests of a bench choose from.
#[derive(Debug, Clone)]
pub(crate) struct Ids {
    /// Ids of tournaments.
    pub(crate) tournaments: Vec<String>,
    /// Ids of players.
    pub(crate) players: Vec<String>,
}

/// The pragmas of every connection of the yardstick: those of the product (`store`), no others.
pub(crate) const PRAGMAS: &str = "PRAGMA busy_timeout=5000; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
PRAGMA temp_store=MEMORY; PRAGMA cache_size=-2000; PRAGMA mmap_size=0; PRAGMA foreign_keys=OFF;
PRAGMA cell_size_check=ON; PRAGMA trusted_schema=OFF;";

/// Writes the sample data into a new file and returns its ids.
pub(crate) fn create(file: &Path) -> anyhow::Result<Ids> {
    let mut connection = Connection::open(file)?;
    connection.execute_batch(PRAGMAS)?;
    let tx = connection.transaction()?;
    tx.execute_batch(SCHEMA)?;
    let mut rng = Rng::new(1);
    let tournaments = insert_tournaments(&tx, &mut rng)?;
    let players = insert_players(&tx, &mut rng, &tournaments)?;
    insert_matches(&tx, &mut rng, &tournaments, &players)?;
    tx.commit()?;
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(Ids { tournaments, players })
}

const MOMENT: &str = "2026-03-01 18:00:00.000Z";

fn insert_tournaments(tx: &Connection, rng: &mut Rng) -> anyhow::Result<Vec<String>> {
    let mut insert = tx.prepare("INSERT INTO tournaments VALUES (NULL, ?, ?, ?, ?, ?, ?)")?;
    let mut ids = Vec::with_capacity(TOURNAMENTS);
    for at in 0..TOURNAMENTS {
        let id = rng.record_id();
        let status = rng.pick(&["registration", "running", "completed"]);
        insert.execute(params![id, format!("City Open {at}"), status, MOMENT, MOMENT, MOMENT])?;
        ids.push(id);
    }
    Ok(ids)
}

fn insert_players(tx: &Connection, rng: &mut Rng, tournaments: &[String]) -> anyhow::Result<Vec<String>> {
    let mut insert = tx.prepare("INSERT INTO players VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?)")?;
    let mut ids = Vec::with_capacity(PLAYERS);
    for at in 0..PLAYERS {
        let (id, user) = (rng.record_id(), rng.record_id());
        let tournament = &tournaments[at % tournaments.len()];
        let status = rng.pick(&["registered", "checked_in", "playing", "eliminated", "withdrawn"]);
        let chips = (rng.below(2_000) * 25) as f64;
        let (table, seat) = ((1 + at % 12) as f64, (1 + at % 9) as f64);
        let name = format!("Player Number {at}");
        insert.execute(params![id, tournament, user, name, status, chips, table, seat, MOMENT, MOMENT, MOMENT])?;
        ids.push(id);
    }
    Ok(ids)
}

fn insert_matches(tx: &Connection, rng: &mut Rng, tournaments: &[String], players: &[String]) -> anyhow::Result<()> {
    let mut insert = tx.prepare("INSERT INTO matches VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
    for at in 0..MATCHES {
        let (id, tournament) = (rng.record_id(), &tournaments[at % tournaments.len()]);
        let (one, other) = (rng.pick(players), rng.pick(players));
        let (round, table) = ((at % 7) as f64, (at % 25) as f64);
        insert.execute(params![id, tournament, round, table, one, other, one, "completed", MOMENT, MOMENT, MOMENT])?;
    }
    Ok(())
}
