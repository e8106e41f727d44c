//! wagate-worker
