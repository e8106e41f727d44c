-- Times are milliseconds since the epoch. Words in braces are filled by the dialect.
-- What a check compares with more than two values is written out: SQLite builds a table for `IN (…)`, each
-- time that the check is made.

CREATE TABLE tenants (
    id {id} NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_ms BIGINT NOT NULL
);

-- `hash` is SHA-256 of the secret, which has 256 random bits.
CREATE TABLE api_keys (
    id {id} NOT NULL PRIMARY KEY,
    tenant_id {id} NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    prefix TEXT NOT NULL,
    hash {bytes} NOT NULL,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT,
    revoked_ms BIGINT
);
CREATE INDEX api_keys_tenant ON api_keys (tenant_id, id);

CREATE TABLE sessions (
    id {id} NOT NULL PRIMARY KEY,
    tenant_id {id} NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    label TEXT,
    user_id TEXT,
    desired TEXT NOT NULL CHECK (desired = 'running' OR desired = 'stopped' OR desired = 'logged_out'
        OR desired = 'deleted'),
    method TEXT,
    generation BIGINT NOT NULL,
    generation_done BIGINT NOT NULL CHECK (generation_done BETWEEN 0 AND generation),
    link TEXT NOT NULL,
    challenge {bytes},
    jid TEXT,
    lid TEXT,
    push_name TEXT,
    platform TEXT,
    last_activity_ms BIGINT,
    connected_ms BIGINT,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    UNIQUE (tenant_id, id)
);
-- A name is free again as soon as the deletion of its session was asked for.
CREATE UNIQUE INDEX sessions_name ON sessions (tenant_id, name) WHERE desired <> 'deleted';

-- One row for each session, held or not, so that the token never falls (SL-1).
CREATE TABLE leases (
    session_id {id} NOT NULL PRIMARY KEY,
    tenant_id {id} NOT NULL,
    worker_id TEXT,
    token BIGINT NOT NULL CHECK (token >= 0),
    expires_ms BIGINT NOT NULL,
    -- The session should run, or has a request that no worker has carried out.
    wanted BIGINT NOT NULL CHECK (wanted IN (0, 1)),
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id)
);
CREATE INDEX leases_wanted ON leases (expires_ms, session_id) WHERE wanted = 1;
CREATE INDEX leases_worker ON leases (worker_id) WHERE worker_id IS NOT NULL;

CREATE TABLE session_counters (
    session_id {id} NOT NULL PRIMARY KEY,
    tenant_id {id} NOT NULL,
    queued BIGINT NOT NULL DEFAULT 0 CHECK (queued >= 0),
    sent BIGINT NOT NULL DEFAULT 0,
    delivered BIGINT NOT NULL DEFAULT 0,
    seen BIGINT NOT NULL DEFAULT 0,
    failed BIGINT NOT NULL DEFAULT 0,
    received BIGINT NOT NULL DEFAULT 0,
    -- Claims so far: every eighth goes to the oldest message, whatever its priority.
    turns BIGINT NOT NULL DEFAULT 0,
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id)
);

-- Both directions. `version` counts the moves of `state`; a move names the version it starts from.
CREATE TABLE messages (
    seq {serial},
    id {id} NOT NULL UNIQUE,
    tenant_id {id} NOT NULL,
    session_id {id} NOT NULL,
    direction TEXT NOT NULL CHECK (direction IN ('inbound', 'outbound')),
    from_me BIGINT NOT NULL CHECK (from_me IN (0, 1)),
    chat {id} NOT NULL,
    -- Empty for what we send.
    sender {id} NOT NULL,
    push_name TEXT,
    wa_id {id} NOT NULL,
    content TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state = 'queued' OR state = 'sending' OR state = 'sent'
        OR state = 'delivered' OR state = 'read' OR state = 'played' OR state = 'failed'
        OR state = 'canceled' OR state = 'expired' OR state = 'received'),
    version BIGINT NOT NULL,
    priority BIGINT NOT NULL CHECK (priority BETWEEN 0 AND 2),
    failure TEXT,
    attempts BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    sent_ms BIGINT,
    delivered_ms BIGINT,
    read_ms BIGINT,
    updated_ms BIGINT NOT NULL,
    CHECK ((direction = 'inbound') = (state = 'received')),
    CHECK ((state = 'failed') = (failure IS NOT NULL)),
    CHECK (sent_ms IS NOT NULL
        OR NOT (state = 'sent' OR state = 'delivered' OR state = 'read' OR state = 'played')),
    CHECK (delivered_ms IS NOT NULL OR NOT (state = 'delivered' OR state = 'read' OR state = 'played')),
    CHECK (read_ms IS NOT NULL OR NOT (state = 'read' OR state = 'played')),
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id)
);
-- IN-1: stored once, however often it is delivered.
CREATE UNIQUE INDEX messages_once ON messages (session_id, chat, sender, wa_id);
-- MP-2: an id that we chose names one message; acknowledgements and receipts find it here.
CREATE UNIQUE INDEX messages_outbound ON messages (session_id, wa_id) WHERE direction = 'outbound';
CREATE INDEX messages_session ON messages (session_id, seq);

CREATE TABLE message_history (
    message_seq BIGINT NOT NULL REFERENCES messages (seq) ON DELETE CASCADE,
    version BIGINT NOT NULL,
    state TEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    failure TEXT,
    PRIMARY KEY (message_seq, version)
) {clustered};

-- A row for each message that still has to be sent. A lane is the messages of one chat with one
-- priority, in order of acceptance; its head is the only one that may be sent (MP-4).
--
-- state 0 ready:     head of its lane, due
--       1 sending:   head of its lane, claimed under `token`
--       2 delayed:   head of its lane, due again at `due_ms`
--       3 scheduled: joins its lane at `due_ms`
--       4 blocked:   behind the head
CREATE TABLE queue (
    message_seq {int} NOT NULL PRIMARY KEY REFERENCES messages (seq) ON DELETE CASCADE,
    tenant_id {id} NOT NULL,
    session_id {id} NOT NULL,
    chat {id} NOT NULL,
    priority BIGINT NOT NULL CHECK (priority BETWEEN 0 AND 2),
    state BIGINT NOT NULL CHECK (state BETWEEN 0 AND 4),
    due_ms BIGINT NOT NULL,
    -- Attempts that count against the bound.
    attempts BIGINT NOT NULL,
    token BIGINT,
    CHECK ((state = 1) = (token IS NOT NULL)),
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id)
);
-- At most one in flight per chat, and one head per lane, whatever the code does.
CREATE UNIQUE INDEX queue_in_flight ON queue (session_id, chat) WHERE state = 1;
CREATE UNIQUE INDEX queue_head ON queue (session_id, chat, priority) WHERE state <= 2;
-- What a claim reads: as long as the number of chats, not of messages, and read from its front.
CREATE INDEX queue_ready ON queue (session_id, priority, message_seq) WHERE state = 0;
CREATE INDEX queue_due ON queue (session_id, due_ms) WHERE state IN (2, 3);
CREATE INDEX queue_blocked ON queue (session_id, chat, priority, message_seq) WHERE state = 4;

CREATE TABLE idempotency (
    tenant_id {id} NOT NULL REFERENCES tenants (id),
    key TEXT NOT NULL,
    body_hash {bytes} NOT NULL,
    session_id {id} NOT NULL,
    message_id {id} NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, key)
);
CREATE INDEX idempotency_age ON idempotency (created_ms);
CREATE INDEX idempotency_session ON idempotency (session_id);

-- EV-1. A tenant's numbers have no gaps: `outbox_heads` gives them out, and its row lock lasts until
-- the commit, so that a reader who has seen a number has seen all before it.
CREATE TABLE outbox_heads (
    tenant_id {id} NOT NULL PRIMARY KEY REFERENCES tenants (id),
    seq BIGINT NOT NULL
);
CREATE TABLE outbox (
    tenant_id {id} NOT NULL,
    seq BIGINT NOT NULL,
    session_id {id},
    type TEXT NOT NULL,
    event TEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, seq)
) {clustered};
CREATE INDEX outbox_age ON outbox (at_ms);

-- The engine's keys and caches: sealed values under readable keys.
CREATE TABLE device_state (
    session_id {id} NOT NULL REFERENCES sessions (id),
    kind BIGINT NOT NULL CHECK (kind BETWEEN 0 AND 255),
    key {id} NOT NULL,
    value {bytes} NOT NULL,
    PRIMARY KEY (session_id, kind, key)
);

CREATE TABLE workers (
    id TEXT NOT NULL PRIMARY KEY,
    endpoint TEXT,
    sessions_max BIGINT NOT NULL,
    version TEXT NOT NULL,
    environment TEXT NOT NULL,
    status TEXT NOT NULL,
    metrics TEXT NOT NULL,
    started_ms BIGINT NOT NULL,
    heartbeat_ms BIGINT NOT NULL
);
