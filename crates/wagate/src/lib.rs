//! wagate
