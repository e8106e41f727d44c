//! wagate-api
