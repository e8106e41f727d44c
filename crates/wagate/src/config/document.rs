//! `docs/configuration.md`, made from the default file: its comments are the one description of a key.

use super::DEFAULT_FILE;
use super::aliases::{ALIASES, REFUSED};

const HEAD: &str = "\
# Configuration

Made from `crates/wagate/src/config.default.toml` by `wagate config document`; change that file, not this
one. `wagate config` shows the values in effect and where each comes from, with secrets masked.

Layers, from weakest to strongest:

1. the defaults below,
2. `wagate.toml` in the working folder, or the file named by `--config` or `WAGATE_CONFIG`,
3. environment variables: `WAGATE_<SECTION>__<KEY>`, and the well-known names at the end of this page,
4. flags: `--set server.port=9000`, and the short ones of `wagate serve --help`.

Durations are written as `500ms`, `10s`, `5m`, `2h` or `7d`; sizes as `4096`, `64KiB`, `1MiB` or `2GiB`. A
value that does not fit, or a key that does not exist, stops the start; every problem is reported at once.
";

/// The whole page.
pub fn document() -> String {
    let mut page = HEAD.to_owned();
    let mut meaning: Vec<&str> = Vec::new();
    let mut section = "";
    for line in DEFAULT_FILE.lines() {
        if let Some(comment) = line.strip_prefix('#') {
            meaning.push(comment.trim());
        } else if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name;
            meaning.clear();
            page.push_str(&format!(
                "\n## `[{section}]`\n\n| key | default | meaning |\n| --- | --- | --- |\n"
            ));
        } else if let Some((key, value)) = line.split_once(" = ") {
            let text = meaning.join(" ").replace('|', "\\|");
            page.push_str(&format!("| `{section}.{key}` | `{value}` | {text} |\n"));
            meaning.clear();
        } else {
            meaning.clear();
        }
    }
    page.push_str("\n## Well-known names\n\n| variable | stands for |\n| --- | --- |\n");
    for alias in ALIASES {
        page.push_str(&format!("| `{}` | `{}` |\n", alias.name, alias.key));
    }
    page.push_str(
        "\nA name and its key set to different values stop the start. Refused, so that nobody believes \
         that they work:\n\n",
    );
    for (name, why) in REFUSED {
        page.push_str(&format!("- `{name}`: {why}\n"));
    }
    page
}
