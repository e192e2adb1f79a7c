//! L1: who asks, and what a rule lets them do.
