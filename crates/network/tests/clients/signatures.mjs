// Makes Baileys' signature checks real. libsignal answers `false` for a wrong signature, but Baileys
// (both versions, with the libsignal that npm has) expects it to throw and so accepts everything; and
// libsignal itself skips the check of a signed prekey. Here a wrong signature throws. To be imported
// before Baileys. Found by the test that a foreign root is refused.

import { createRequire } from 'node:module';

const curve = createRequire(import.meta.url)('libsignal/src/curve.js');
const verify = curve.verifySignature;

curve.verifySignature = (key, message, signature) => {
  if (!verify(key, message, signature, false)) throw new Error('Invalid signature');
  return true;
};
