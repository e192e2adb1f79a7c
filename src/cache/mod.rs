//! L2: the coherent cache.
