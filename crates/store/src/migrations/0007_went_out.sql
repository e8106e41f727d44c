-- The id of a message is looked for once it may have gone out. Until then its place in this index, which is
-- anywhere since ids are random, is a page to be read and written for each message that is queued.
DROP INDEX messages_outbound;
CREATE UNIQUE INDEX messages_outbound ON messages (session_id, wa_id)
    WHERE direction = 'outbound' AND (attempts > 0 OR sender <> '');
