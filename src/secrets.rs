//! L2: password hashes and tokens.
