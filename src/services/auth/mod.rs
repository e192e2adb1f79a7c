//! Users and logins.
