//! Tells the crate which sources it is built from, so that what a binary of other sources has kept on disk is not taken for
//! its own: the same question may be answered otherwise there.
//!
//! Keeps true: the same sources, dependencies, features and compiler give the same number, any other ones another. Does not
//! do: anything else.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::fs;
use std::hash::Hasher as _;
use std::io;
use std::path::Path;
use std::process::Command;

fn main() -> io::Result<()> {
    let mut hasher = DefaultHasher::new();
    for place in ["src", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={place}");
        absorb(&mut hasher, Path::new(place))?;
    }
    let mut features: Vec<String> =
        env::vars().map(|(name, _)| name).filter(|name| name.starts_with("CARGO_FEATURE_")).collect();
    features.sort();
    features.iter().for_each(|feature| hasher.write(feature.as_bytes()));
    let compiler = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-V").output()?;
    hasher.write(&compiler.stdout);
    println!("cargo::rustc-env=TENANTRY_SOURCES={:016x}", hasher.finish());
    Ok(())
}

/// A file by its path and contents, a folder by everything in it, in one order; what is not there counts for nothing.
fn absorb(hasher: &mut DefaultHasher, place: &Path) -> io::Result<()> {
    if place.is_dir() {
        let mut inside = fs::read_dir(place)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        inside.sort();
        return inside.iter().try_for_each(|path| absorb(hasher, path));
    }
    let contents = match fs::read(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read?,
    };
    for part in [place.to_string_lossy().as_bytes(), &contents] {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
    Ok(())
}
