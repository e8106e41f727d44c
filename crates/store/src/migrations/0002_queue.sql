-- When a message may go out, and until when it is worth sending; nothing: at once, and for ever.
ALTER TABLE messages ADD COLUMN not_before_ms BIGINT;
ALTER TABLE messages ADD COLUMN expires_ms BIGINT;
-- As in the message, so that a claim need not look there.
ALTER TABLE queue ADD COLUMN expires_ms BIGINT;
CREATE INDEX queue_expiry ON queue (expires_ms) WHERE expires_ms IS NOT NULL;

-- Messages that ended failed or expired, and can be tried again. A table of its own: an index over the
-- state of all messages would make each of their moves dearer.
CREATE TABLE dead_letters (
    message_seq {int} NOT NULL PRIMARY KEY REFERENCES messages (seq) ON DELETE CASCADE,
    tenant_id {id} NOT NULL,
    session_id {id} NOT NULL,
    -- The failure's code, or `expired`.
    code TEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id)
);
CREATE INDEX dead_letters_tenant ON dead_letters (tenant_id, message_seq);
CREATE INDEX dead_letters_session ON dead_letters (session_id, message_seq);
INSERT INTO dead_letters (message_seq, tenant_id, session_id, code, at_ms)
    SELECT seq, tenant_id, session_id, state, updated_ms FROM messages
    WHERE direction = 'outbound' AND state IN ('failed', 'expired');

-- How queues work, where somebody said so. No row, or nothing in it: the tenant's default, and then the
-- operator's.
CREATE TABLE tenant_queues (
    tenant_id {id} NOT NULL PRIMARY KEY REFERENCES tenants (id),
    concurrency BIGINT CHECK (concurrency BETWEEN 1 AND 20),
    updated_ms BIGINT NOT NULL
);
CREATE TABLE session_queues (
    session_id {id} NOT NULL PRIMARY KEY,
    tenant_id {id} NOT NULL,
    concurrency BIGINT CHECK (concurrency BETWEEN 1 AND 20),
    paused BIGINT NOT NULL CHECK (paused IN (0, 1)),
    updated_ms BIGINT NOT NULL,
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id)
);
