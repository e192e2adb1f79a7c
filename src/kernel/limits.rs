//! Every bound in the system, in one place, with the relations between them asserted at compile time.
//!
//! Keeps true: a queue, page, body, depth or retry without a line here does not exist.
//! Does not do: configuration. Where a bound can be configured, this is its default or its ceiling.

/// Largest JSON request body, bytes.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest multipart request body, bytes.
pub const MULTIPART_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest uploaded file when its field names no `maxSize`, bytes (PocketBase: 5 MiB).
pub const FILE_BYTES_DEFAULT: u64 = 5 * 1024 * 1024;
/// Largest exported tenant that an import takes, bytes.
pub const TENANT_IMPORT_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// Milliseconds by which the stamps of an imported file may be ahead of this node's clock; every later write is stamped
/// after them.
pub const IMPORT_CLOCK_AHEAD_MS: i64 = 24 * 60 * 60 * 1_000;
/// Files in one multipart body.
pub const UPLOADS_PER_BODY_MAX: usize = 100;
/// Bytes at the beginning of a file by which its media type is told.
pub const FILE_HEAD_BYTES: usize = 8 * 1024;
/// Bytes of a file read or packed at a time.
pub const FILE_CHUNK_BYTES: usize = 256 * 1024;
/// Lists of files waiting to be removed after their commit; beyond, the next sweep finds them.
pub const FILE_REMOVALS_LEN_MAX: usize = 1_024;
/// Milliseconds that a file which no record names is left alone: its commit may be under way.
pub const FILE_ORPHAN_AGE_MS: i64 = 60 * 60 * 1_000;
/// Milliseconds between two looks for such files in one open tenant.
pub const FILE_SWEEP_EVERY_MS: i64 = 24 * 60 * 60 * 1_000;
/// Deepest nesting of a JSON body.
pub const JSON_DEPTH_MAX: usize = 64;
/// Characters of a sentence in a refusal; it may quote what was sent.
pub const REFUSAL_CHARS_MAX: usize = 2_000;
/// Characters of the path by which a refusal names a member of the request.
pub const REFUSAL_FIELD_CHARS_MAX: usize = 250;
/// Levels of that path that become objects of their own in the answer; the rest is one name.
pub const REFUSAL_FIELD_DEPTH_MAX: usize = 32;
/// Members that one refusal names.
pub const REFUSAL_FIELDS_MAX: usize = 100;
/// Largest URL query string, bytes.
pub const QUERY_BYTES_MAX: usize = 16 * 1024;

/// Characters in a filter (PocketBase: 3,500).
pub const FILTER_CHARS_MAX: usize = 3_500;
/// Bytes of the pattern that the operand of `~` becomes; a longer operand is looked for by its beginning.
pub const LIKE_PATTERN_BYTES_MAX: usize = 16 * 1024;
/// Comparisons in a filter (PocketBase: 200).
pub const FILTER_EXPRESSIONS_MAX: usize = 200;
/// Nesting of parentheses in a filter.
pub const FILTER_DEPTH_MAX: usize = 32;
/// Characters in an access rule.
pub const RULE_CHARS_MAX: usize = 10_000;
/// Fields in a sort (PocketBase: 8).
pub const SORT_FIELDS_MAX: usize = 8;
/// Relations in one path (PocketBase: 6).
pub const PATH_DEPTH_MAX: usize = 6;
/// Distinct joins one statement may need.
pub const JOINS_MAX: usize = 24;
/// Bytes of SQL that one question may become (SQLite itself takes 1,000,000).
pub const STATEMENT_BYTES_MAX: usize = 400_000;
/// Values bound to one statement (SQLite itself takes 32,766).
pub const STATEMENT_BINDS_MAX: usize = 16_000;
/// Words in a `search`.
pub const SEARCH_WORDS_MAX: usize = 64;
/// Entries in a field selection.
pub const FIELDS_MAX: usize = 200;
/// Entries in an expand.
pub const EXPAND_MAX: usize = 50;

/// Bytes of one sort key in a cursor; of a longer one the beginning stands there, the rest is read from the record.
pub const CURSOR_KEY_BYTES_MAX: usize = 512;
/// Bytes of a cursor's text.
pub const CURSOR_TEXT_BYTES_MAX: usize = 8 * 1024;

/// Records per page when nothing is asked for.
pub const PAGE_LEN_DEFAULT: usize = 30;
/// Records per page at most.
pub const PAGE_LEN_MAX: usize = 1_000;
/// Change records per page at most.
pub const CHANGES_PAGE_MAX: usize = 1_000;
/// Bytes of log records after which a page of changes ends, with one record at least.
pub const CHANGES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of log records by which a cache is told which records changed lately when a tenant is opened.
pub const CACHE_TAIL_BYTES_MAX: usize = 1024 * 1024;
/// Log records that one call for the audit trail looks at.
pub const AUDIT_SCAN_MAX: usize = 10_000;
/// Requests in a batch at most.
pub const BATCH_LEN_MAX: usize = 500;
/// Records of one collection whose comparisons an explanation shows; the verdict looks at all.
pub const EXPLAIN_SCAN_MAX: usize = 10_000;
/// Steps of an explanation or a rule test: comparisons, and rows and elements that are looked at.
pub const EXPLAIN_STEPS_MAX: u64 = 1_000_000;
/// Passwords that one batch may set; each costs a hash before the batch can run.
pub const BATCH_HASHES_MAX: usize = 50;
/// Records of a back-relation that one expand shows per record (PocketBase: 1,000).
pub const EXPAND_BACK_LEN_MAX: usize = 1_000;
/// Records that one expand may load over all its levels.
pub const EXPAND_RECORDS_MAX: usize = 50_000;
/// Bytes that one expand may write over all its levels; each copy of an embedded record counts.
pub const EXPAND_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Characters in an idempotency key.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;
/// Milliseconds for which a receipt answers repetitions.
pub const RECEIPT_AGE_MS: i64 = 24 * 60 * 60 * 1_000;
/// Records that an import writes in one transaction.
pub const IMPORT_CHUNK_LEN: usize = 1_000;
/// Bytes in one line of an import.
pub const IMPORT_LINE_BYTES_MAX: usize = BODY_BYTES_MAX;
/// Refused lines that an import reports one by one.
pub const IMPORT_ERRORS_MAX: usize = 100;

/// Bytes of log lines that wait to be written; what comes beyond is dropped and counted.
pub const LOG_BUFFER_BYTES_MAX: usize = 1024 * 1024;
/// Milliseconds for which log lines gather before they are written.
pub const LOG_FLUSH_MS: u64 = 100;
/// Visitors (tenant, host, token) that one worker remembers.
pub const VISITS_REMEMBERED_MAX: usize = 2_048;
/// Bytes of address and headers by which a visitor is remembered.
pub const VISIT_KEY_BYTES_MAX: usize = 2_048;
/// Reads that one worker remembers with their plan, about 1 KiB each.
pub const READS_REMEMBERED_MAX: usize = 4_096;
/// Bytes of an address by which a read is remembered.
pub const READ_KEY_BYTES_MAX: usize = 1_024;

/// Collections in a tenant.
pub const COLLECTIONS_MAX: usize = 500;
/// Fields ever made in one collection.
pub const FIELDS_PER_COLLECTION_MAX: usize = 400;
/// Indexes on one collection.
pub const INDEXES_PER_COLLECTION_MAX: usize = 64;
/// Default ceiling of a text field, characters (PocketBase: 5,000).
pub const TEXT_CHARS_DEFAULT: usize = 5_000;
/// Default ceiling of a JSON or editor field, bytes.
pub const JSON_BYTES_DEFAULT: usize = 1024 * 1024;

/// Bytes for which there must be room, or a failure of the disk is one of space.
pub const SPACE_PROBE_BYTES: usize = 64 * 1024;
/// Bytes that a node keeps for a full disk: opening a database takes 32 KiB of them, a deletion some pages of its log.
pub const DISK_RESERVE_BYTES: u64 = 4 * 1024 * 1024;
/// Free bytes below which the reserve is given up and nothing is stored that can be refused.
pub const DISK_LOW_BYTES: u64 = 1024 * 1024;
/// Free bytes, with those of the reserve, from which on it is taken back and everything is stored again.
pub const DISK_AMPLE_BYTES: u64 = 8 * 1024 * 1024;
/// Milliseconds after which a reserve that could not be taken is tried again.
pub const DISK_RETAKE_MS: u64 = 5 * 60 * 1_000;
/// Free bytes that a node leaves which stops on a full disk.
pub const DISK_MARGIN_BYTES: u64 = 64 * 1024;
/// Free bytes below which the cache leaves the disk to what cannot be made again.
pub const CACHE_ROOM_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Looks at a cache on disk that its last owner has not let go of yet.
pub const CACHE_LET_GO_LOOKS: u32 = 40;
/// Milliseconds between two of them.
pub const CACHE_LET_GO_PAUSE_MS: u64 = 25;
/// Records that one step of emptying a collection deletes.
pub const TRUNCATE_BATCH_LEN: usize = 5_000;
/// The same on a full disk: what a step frees is there for the log of the next.
pub const TRUNCATE_BATCH_LEN_TIGHT: usize = 100;
/// Requests waiting for the writer of one tenant.
pub const WRITE_QUEUE_LEN_MAX: usize = 1_024;
/// Requests that share one commit.
pub const GROUP_COMMIT_LEN_MAX: usize = 256;
/// Milliseconds after which a group takes no further request.
pub const GROUP_COMMIT_MS_MAX: u64 = 50;
/// Milliseconds for which writes wait while no thread takes a turn, before another thread comes to help.
pub const WRITER_PATIENCE_MS: u64 = 100;
/// Threads that come to help at most, beside `data.writer_threads`.
pub const WRITER_HELPERS_MAX: usize = 16;
/// Milliseconds without work after which such a thread ends.
pub const WRITER_HELPER_LINGER_MS: u64 = 5_000;
/// Operations in one transaction.
pub const TX_OPS_MAX: usize = 100_000;
/// Characters in a tenant's name.
pub const TENANT_NAME_CHARS_MAX: usize = 200;
/// Origins in one tenant's list of those whose pages may call it.
pub const TENANT_ORIGINS_MAX: usize = 50;
/// Host names of one tenant.
pub const TENANT_HOSTS_MAX: usize = 20;
/// Tenants with an open database handle.
pub const OPEN_TENANTS_DEFAULT: usize = 512;
/// Handles beyond that bound while all of them are in use.
pub const OPEN_TENANTS_HEADROOM: usize = 16;
/// Milliseconds an opening waits while even that is used up.
pub const OPEN_WAIT_MS: u64 = 2_000;
/// Read connections per tenant.
pub const READERS_PER_TENANT_MAX: u32 = 4;
/// Reads of one tenant that wait for a read connection.
pub const READERS_WAITING_MAX: usize = 256;
/// Milliseconds a read waits for one.
pub const READER_WAIT_MS: u64 = 5_000;
/// Milliseconds a read statement may take.
pub const READ_DEADLINE_MS: u64 = 10_000;
/// Virtual-machine steps of the first try on the request's own thread.
pub const READ_INLINE_STEPS: u64 = 200_000;
/// Virtual-machine steps a read statement may take.
pub const READ_STEPS_MAX: u64 = 500_000_000;
/// Prepared statements kept per connection.
pub const STATEMENT_CACHE_LEN: usize = 1_024;
/// Bytes of SQL beyond which a statement is compiled anew for every run instead of being kept.
pub const STATEMENT_KEPT_BYTES_MAX: usize = 16 * 1024;
/// Bytes of query plans that the node keeps; the plans of one tenant are at most a quarter of them.
pub const PLAN_CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Log records that one step of cutting the log takes; writers wait for one step at most.
pub const LOG_CUT_LEN_MAX: i64 = 20_000;
/// Log records whose sizes one read adds up.
pub const LOG_SCAN_LEN_MAX: i64 = 100_000;
/// Free pages that a file keeps for the next writes (1 MiB).
pub const FREE_PAGES_KEPT: u64 = 256;
/// Pages that one step of shrinking gives back; writers wait for one step at most.
pub const SHRINK_STEP_PAGES: u64 = 256;
/// Steps of shrinking in one upkeep.
pub const SHRINK_STEPS_MAX: usize = 512;
/// Bytes of application values and locks of all tenants when nothing else is configured.
pub const VALUES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of one tenant's application values and locks when nothing else is configured.
pub const VALUES_TENANT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Application values of one tenant when nothing else is configured.
pub const VALUES_PER_TENANT_MAX: usize = 10_000;
/// Bytes of one application value.
pub const VALUE_BYTES_MAX: usize = 256 * 1024;
/// Locks that one tenant's applications hold at the same time.
pub const LOCKS_PER_TENANT_MAX: usize = 1_000;
/// Days the log is kept when nothing else is configured.
pub const LOG_KEEP_DAYS: u32 = 30;
/// Bytes of log a tenant keeps when nothing else is configured.
pub const LOG_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Milliseconds between two upkeeps of one open tenant.
pub const UPKEEP_EVERY_MS: i64 = 10 * 60 * 1_000;
/// Expired sessions or codes that one upkeep removes in one transaction.
pub const UPKEEP_ROWS_MAX: usize = 1_000;

/// Milliseconds between two checks of one tenant's file because of panics.
pub const PANIC_CHECK_EVERY_MS: i64 = 60 * 1_000;

/// Password hashes computed at the same time.
pub const HASH_CONCURRENCY_MAX: usize = 2;
/// Password hashes waiting at most.
pub const HASH_QUEUE_LEN_MAX: usize = 256;
/// Password hashes of one address waiting at most.
pub const HASH_LANE_LEN_MAX: usize = 64;
/// Requests up to which a rate limit is told with every answer; a higher one is told once a tenth of it is used.
pub const RATE_TOLD_PERMITS_MAX: u32 = 10_000;
/// Keys that one rate limit remembers.
pub const THROTTLE_KEYS_MAX: usize = 65_536;
/// Parts, each with an own lock, that the keys of one rate limit are spread over.
pub const THROTTLE_SHARDS: usize = 64;
/// Bytes in a password (argon2 input bound; OWASP asks for at least 64 characters).
pub const PASSWORD_BYTES_MAX: usize = 128;
/// Accounts, sessions and suspensions, or that there is none, kept in memory for checking tokens.
pub const KNOWN_ACCOUNTS_MAX: usize = 65_536;
/// Seconds an access token of a session lives.
pub const SESSION_TOKEN_S: u64 = 900;
/// Seconds a session lives without being refreshed.
pub const SESSION_IDLE_S: u64 = 30 * 86_400;
/// Seconds a session lives at most.
pub const SESSION_AGE_MAX_S: u64 = 180 * 86_400;
/// Seconds an impersonation token lives at most.
pub const IMPERSONATION_S_MAX: u64 = 86_400;
/// Bytes of the identity in a login.
pub const IDENTITY_BYTES_MAX: usize = 255;
/// Milliseconds an event about somebody's access is kept.
pub const AUTH_EVENT_AGE_MS: i64 = 90 * 86_400_000;
/// Rows per minute that failed logins of one tenant make; past them one row counts the rest.
pub const AUTH_EVENTS_PER_MINUTE_MAX: u32 = 120;
/// Rows that failed logins of one tenant may take up altogether; past them no row is written for one, only counted.
pub const AUTH_EVENTS_CHEAP_MAX: usize = 20_000;
/// Rows of events whose counts are kept in memory.
pub const AUTH_EVENTS_COUNTED_MAX: usize = 8_192;
/// Events that wait for being written.
pub const AUTH_EVENTS_WRITING_MAX: usize = 1_024;
/// The same of failures, which anybody can cause.
pub const AUTH_EVENTS_CHEAP_WRITING_MAX: usize = 256;
/// Milliseconds that whoever reads the trail waits for events that are being written.
pub const AUTH_EVENTS_WAIT_MS: u64 = 1_000;
/// Sessions of one account; the oldest goes when another is opened.
pub const SESSIONS_PER_ACCOUNT_MAX: usize = 50;
/// Wrong guesses that end a one-time code.
pub const OTP_ATTEMPTS_MAX: u32 = 5;
/// API keys of one account.
pub const KEYS_PER_ACCOUNT_MAX: usize = 100;
/// One-time codes of one account that wait to be used.
pub const OTPS_PER_ACCOUNT_MAX: usize = 5;
/// Seconds a login waits for its second factor when the collection does not say (PocketBase: 1,800).
pub const MFA_S: u64 = 1_800;
/// Logins of one account that wait for their second factor.
pub const MFAS_PER_ACCOUNT_MAX: usize = 10;
/// Second factors that did not hold, after which a login starts again.
pub const MFA_ATTEMPTS_MAX: u32 = 10;
/// Wrong codes of an authenticator app in a row that cost the account nothing; more cost a pause (RFC 4226, 7.3).
pub const TOTP_FREE_MISSES: u32 = 5;
/// Seconds of the first pause; each further wrong code doubles it.
pub const TOTP_PAUSE_S: u64 = 30;
/// Seconds of the longest pause.
pub const TOTP_PAUSE_S_MAX: u64 = 900;
/// Recovery codes of one account.
pub const RECOVERY_CODES: usize = 10;
/// Passkeys of one account.
pub const PASSKEYS_PER_ACCOUNT_MAX: usize = 20;
/// Passkey ceremonies under way.
pub const CHALLENGES_MAX: usize = 8_192;
/// Passkey ceremonies under way that one address began.
pub const CHALLENGES_PER_ADDRESS_MAX: usize = 64;
/// Milliseconds in which a passkey ceremony is to be answered (WebAuthn 3, 15.1: five to ten minutes).
pub const CHALLENGE_MS: i64 = 300_000;
/// Mails waiting to be handed over.
pub const MAIL_QUEUE_LEN_MAX: usize = 1_024;
/// Mails on disk waiting for a mail server.
pub const MAILS_WAITING_MAX: usize = 20_000;
/// Deliveries under way at the same time.
pub const MAIL_DELIVERIES_MAX: usize = 16;
/// Deliveries of one tenant under way at the same time.
pub const MAIL_DELIVERIES_PER_TENANT_MAX: usize = 4;
/// Mail servers to which connections are kept.
pub const MAIL_SERVERS_MAX: usize = 256;
/// Connections to one mail server.
pub const MAIL_CONNECTIONS_PER_SERVER_MAX: u32 = 4;
/// Milliseconds between two looks at what is due.
pub const MAIL_TICK_MS: u64 = 100;
/// Milliseconds between two tries at most.
pub const MAIL_RETRY_MS_MAX: u64 = 3_600_000;
/// Requests for a mail that are worked on after they were answered.
pub const MAIL_WORK_MAX: usize = 256;
/// Places from which an account was entered that are remembered.
pub const ORIGINS_PER_ACCOUNT_MAX: usize = 10;

/// Tenants whose changes wait to be told to caches in front of the node.
pub const PURGE_TENANTS_MAX: usize = 4_096;
/// Collections and tags of one tenant that wait by name; more wait as the tenant.
pub const PURGE_PARTS_MAX: usize = 64;
/// Records of one collection that wait by name; more wait as the collection.
pub const PURGE_RECORDS_MAX: usize = 200;
/// Times one post is tried before it is given up.
pub const PURGE_ATTEMPTS_MAX: u32 = 8;

/// Names without a certificate that clients asked for and that wait to be looked at.
pub const CERTIFICATES_ASKED_MAX: usize = 64;
/// Outbound requests under way at the same time.
pub const OUTBOUND_CONCURRENCY_MAX: usize = 64;
/// Registrations of one tenant that wait for their address to be confirmed.
pub const REGISTRATIONS_MAX: usize = 10_000;
/// Bytes of one such registration.
pub const REGISTRATION_BYTES_MAX: usize = 16 * 1024;
/// Bytes of one outbound answer.
pub const OUTBOUND_BODY_BYTES_MAX: usize = 256 * 1024;
/// Milliseconds one outbound connection may take to come about.
pub const OUTBOUND_CONNECT_MS_MAX: u64 = 5_000;
/// Addresses of one name that are tried one after the other.
pub const OUTBOUND_ADDRESSES_MAX: usize = 8;
/// Milliseconds one outbound request may take, its answer included.
pub const OUTBOUND_MS_MAX: u64 = 10_000;
/// Seconds between asking for a provider's sign-in address and coming back with its code.
pub const OAUTH_SIGN_IN_S: u64 = 600;
/// Bytes of a code, a verifier or a return address in a sign-in.
pub const OAUTH_CODE_BYTES_MAX: usize = 4_096;
/// Sign-ins whose verifier is remembered as used.
pub const OAUTH_USED_MAX: usize = 65_536;
/// Identity providers in one collection.
pub const OAUTH_PROVIDERS_MAX: usize = 32;
/// Issuers whose metadata and keys are kept in memory.
pub const OAUTH_ISSUERS_MAX: usize = 256;
/// Milliseconds an issuer's metadata and keys are kept.
pub const OAUTH_ISSUER_AGE_MS: i64 = 3_600_000;
/// Milliseconds for which a failed look at an issuer is not repeated.
pub const OAUTH_ISSUER_FAILED_MS: i64 = 10_000;
/// Times per minute that an unknown key id makes an issuer's keys be fetched again.
pub const OAUTH_KEYS_REFETCH_MAX: u32 = 6;
/// Keys of one issuer that are looked at.
pub const JWKS_KEYS_MAX: usize = 64;
/// Bytes of an identity token.
pub const ID_TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Seconds by which the clocks of node and provider may differ.
pub const OAUTH_CLOCK_SKEW_S: i64 = 60;

/// Milliseconds for which a session counts as just begun, so that tying an identity to its account asks for no password.
pub const SESSION_FRESH_MS: i64 = 600_000;
/// Guesses below which a new password is refused: more than there are words in the list of common ones.
pub const PASSWORD_GUESSES_MIN: u64 = 30_100;
/// Characters of the longest password that is looked at for being common; the longest of the list has 20.
pub const PASSWORD_ESTIMATED_CHARS_MAX: usize = 40;

/// Connections the listener accepts at the same time, per worker.
pub const CONNECTIONS_MAX: usize = 12_000;
/// Open connections from one address, by default: a page takes six, an office behind one address has hundreds of pages.
pub const CONNECTIONS_PER_ADDRESS_MAX: u32 = 2_000;
/// Milliseconds a client may take to send its request head.
pub const REQUEST_HEAD_TIMEOUT_MS: u64 = 5_000;
/// Milliseconds for which a client may take nothing of what it is sent.
pub const WRITE_TIMEOUT_MS: u64 = 60_000;

const _: () = assert!(VALUE_BYTES_MAX < VALUES_TENANT_BYTES_MAX && VALUES_TENANT_BYTES_MAX <= VALUES_BYTES_MAX);
const _: () = assert!(GROUP_COMMIT_LEN_MAX <= WRITE_QUEUE_LEN_MAX);
const _: () = assert!(WRITER_PATIENCE_MS > GROUP_COMMIT_MS_MAX);
const _: () = assert!(MAIL_DELIVERIES_PER_TENANT_MAX < MAIL_DELIVERIES_MAX);
const _: () = assert!(BATCH_LEN_MAX <= TX_OPS_MAX);
// What is taken back is not given up again at once, and the cache never takes the room by which the node sees that the
// disk is full no more, the reserve still to be taken from it.
const _: () = assert!(DISK_RESERVE_BYTES + DISK_LOW_BYTES < DISK_AMPLE_BYTES);
const _: () = assert!(DISK_AMPLE_BYTES + DISK_RESERVE_BYTES < CACHE_ROOM_BYTES_MIN);
const _: () = assert!(DISK_MARGIN_BYTES < DISK_LOW_BYTES);
const _: () = assert!(TRUNCATE_BATCH_LEN_TIGHT < TRUNCATE_BATCH_LEN && TRUNCATE_BATCH_LEN <= TX_OPS_MAX);
const _: () = assert!(AUTH_EVENTS_CHEAP_WRITING_MAX < AUTH_EVENTS_WRITING_MAX);
const _: () = assert!(CHALLENGES_PER_ADDRESS_MAX < CHALLENGES_MAX);
const _: () = assert!(TOTP_PAUSE_S <= TOTP_PAUSE_S_MAX);
const _: () = assert!(PAGE_LEN_DEFAULT <= PAGE_LEN_MAX);
const _: () = assert!(READ_INLINE_STEPS < READ_STEPS_MAX);
// Every cursor that is handed out is also taken back: its keys and the id, as base64.
const _: () = assert!(((SORT_FIELDS_MAX + 1) * (CURSOR_KEY_BYTES_MAX + 5) + 64) * 4 / 3 <= CURSOR_TEXT_BYTES_MAX);
const _: () = assert!(CURSOR_TEXT_BYTES_MAX <= QUERY_BYTES_MAX / 2);
// No text of a filter is cut: a character has four bytes at most, and only those of one byte are escaped.
const _: () = assert!(4 * FILTER_CHARS_MAX + 2 <= LIKE_PATTERN_BYTES_MAX);
// SQLite itself takes 50,000.
const _: () = assert!(LIKE_PATTERN_BYTES_MAX <= 50_000);
