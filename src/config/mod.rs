//! Configuration: raw → validated.
