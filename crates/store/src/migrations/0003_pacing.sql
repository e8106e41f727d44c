-- How a session is paced, how far it has used its limits, and what WhatsApp asked of it. No row: the
-- operator's defaults, and nothing happened yet.
CREATE TABLE session_pacing (
    session_id {id} NOT NULL PRIMARY KEY,
    tenant_id {id} NOT NULL,
    -- What the tenant changed, as JSON; nothing where the defaults count.
    rules TEXT,
    -- Written by the holder of the lease, in the transaction of the claim, before a message goes out.
    state TEXT,
    -- When to connect again after a ban for a time.
    banned_until_ms BIGINT,
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id)
);
CREATE INDEX session_pacing_banned ON session_pacing (banned_until_ms)
    WHERE banned_until_ms IS NOT NULL;

-- Numbers of which WhatsApp said that nobody has them, so that it is not asked again for each message.
CREATE TABLE absent_numbers (
    session_id {id} NOT NULL REFERENCES sessions (id),
    chat {id} NOT NULL,
    checked_ms BIGINT NOT NULL,
    PRIMARY KEY (session_id, chat)
) {clustered};

-- Chats to which a message was sent. Who wrote to us is found among the messages.
CREATE TABLE known_chats (
    session_id {id} NOT NULL REFERENCES sessions (id),
    chat {id} NOT NULL,
    PRIMARY KEY (session_id, chat)
) {clustered};
INSERT INTO known_chats (session_id, chat)
    SELECT DISTINCT session_id, chat FROM messages
    WHERE direction = 'outbound' AND sent_ms IS NOT NULL;
