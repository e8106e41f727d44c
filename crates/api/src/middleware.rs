//! What happens around every request.

mod observe;

pub(crate) use observe::{observe, panicked};
