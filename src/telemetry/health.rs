//! Health: what each part says about itself.
//!
//! Keeps true: a check returns at once and never does I/O that may hang. Does not do: deciding what a load balancer
//! should do; the HTTP edge turns the report into `/health`, `/livez` and `/readyz`.

/// A part that can say whether it is well.
pub trait HealthSource: Send + Sync {
    /// The name under `checks`.
    fn name(&self) -> &'static str;
    /// `Err` tells what is wrong, in words that may be shown to anybody.
    fn check(&self) -> Result<(), String>;
}
