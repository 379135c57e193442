//! HTTP to services: what goes across, at whose pace, and what does not.
