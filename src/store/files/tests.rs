//! The folder of files: kept, released, swept, carried.
