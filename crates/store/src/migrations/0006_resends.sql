-- Messages that a device of the recipient could not decrypt and asked for again. A row stays until a
-- device has confirmed the message.
CREATE TABLE resends (
    message_seq {int} NOT NULL PRIMARY KEY REFERENCES messages (seq) ON DELETE CASCADE,
    tenant_id {id} NOT NULL,
    session_id {id} NOT NULL,
    -- How often it was sent again.
    times BIGINT NOT NULL,
    -- When to look again whether it was confirmed; nothing: often enough.
    due_ms BIGINT,
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id)
);
CREATE INDEX resends_due ON resends (due_ms) WHERE due_ms IS NOT NULL;
