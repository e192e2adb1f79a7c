//! Tests of the store over real files; the crash suite and the properties of the log are in `tests/`.

mod support;
mod handles;
mod reading;
mod whole_files;
mod writing;
