//! Dictionary 3: spoken by clients whose header ends in 3 (WhatsApp Web today, whatsapp-rust,
//! Baileys 7).

use std::sync::LazyLock;

use super::Dictionary;

/// The tokens of dictionary 3.
pub static DICTIONARY: LazyLock<Dictionary> =
    LazyLock::new(|| Dictionary::parse(3, include_str!("tokens_v3.txt")));
