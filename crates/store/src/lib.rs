//! wagate-store
