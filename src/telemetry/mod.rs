//! L2: logs and metrics.
