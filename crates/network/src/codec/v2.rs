//! Dictionary 2: spoken by clients whose header ends in 2 (Baileys up to 6.17).

use std::sync::LazyLock;

use super::Dictionary;

/// The tokens of dictionary 2.
pub static DICTIONARY: LazyLock<Dictionary> =
    LazyLock::new(|| Dictionary::parse(2, include_str!("tokens_v2.txt")));
