//! wagate-app
