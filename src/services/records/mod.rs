//! Records: what a caller may do.
