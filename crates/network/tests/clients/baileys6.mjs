// Baileys 6: dictionary 2, always the XX handshake, no check of the certificate's signature.

import './signatures.mjs';
import module from 'baileys6';

export default {
  makeWASocket: module.default ?? module.makeWASocket,
  initAuthCreds: module.initAuthCreds,
  Browsers: module.Browsers,
  pinRoot() {
    throw new Error('Baileys 6 does not verify the chain; only version 7 can pin a root');
  },
};
