//! What the first steps print: for people, on standard output.

use serde_json::Value;

/// A new step begins.
pub(crate) fn step(text: &str) {
    println!("\n● {text}");
}

/// A call that a user's program would make.
pub(crate) fn call(method: &str, path: &str, body: Option<&Value>) {
    match body {
        Some(body) => println!("    {method} {path}  {body}"),
        None => println!("    {method} {path}"),
    }
}

/// Something of several lines.
pub(crate) fn block(text: &str) {
    for line in text.lines() {
        println!("    {line}");
    }
}

/// A message reached a state.
pub(crate) fn state(state: &str, at: &str) {
    println!("    → {state:<9}  {at}");
}

/// A step succeeded.
pub(crate) fn done(text: &str) {
    println!("  ✓ {text}");
}
