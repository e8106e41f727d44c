// Baileys 7: dictionary 3, LIDs, and a certificate chain that is verified up to a root.

import './signatures.mjs';
import makeWASocket, { Browsers, WA_CERT_DETAILS, initAuthCreds } from 'baileys7';

export default {
  makeWASocket,
  initAuthCreds,
  Browsers,
  /** Puts another root in the place of WhatsApp's; the whole chain is then verified up to it. */
  pinRoot(key) {
    WA_CERT_DETAILS.PUBLIC_KEY = key;
  },
};
