//! Dialects: interfaces of other systems, kept for their clients. Renaming and shapes only; what
//! happens is decided where the canonical routes have it decided.

pub(crate) mod gateway;
pub(crate) mod instance;
mod shapes;
pub(crate) mod whatsapp;
pub(crate) mod worker;

pub(crate) use shapes::WorkerHealth;
