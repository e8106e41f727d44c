//! Sealing of what must be kept secret at rest: XChaCha20-Poly1305 under a master key with an id.
use crate::error::StoreError;

/// A master key and its id.
pub struct MasterKey;
impl MasterKey {
    /// 32 bytes in base64 (with or without padding) or 64 hexadecimal digits; the id is derived from the key.
    pub fn parse(_text: &str) -> Result<Self, StoreError> { todo!() }
    pub fn generate() -> Self { todo!() }
    /// The form that `parse` reads (base64).
    pub fn to_text(&self) -> String { todo!() }
}
/// Seals with the first key, opens with any. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sealer;
impl Sealer {
    pub fn new(_current: MasterKey, _retired: Vec<MasterKey>) -> Self { todo!() }
    pub fn seal(&self, _aad: &[u8], _plain: &[u8]) -> Vec<u8> { todo!() }
    pub fn open(&self, _aad: &[u8], _sealed: &[u8]) -> Result<Vec<u8>, StoreError> { todo!() }
}
