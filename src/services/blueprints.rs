//! Blueprints: publish, apply, roll back.
