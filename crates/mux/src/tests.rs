//! Tests of the whole crate over in-memory links. What needs only one module is tested beside it.

mod basics;
