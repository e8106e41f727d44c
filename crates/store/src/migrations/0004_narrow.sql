-- Fewer index entries to write for each message.

-- Events leave in order of their numbers.
DROP INDEX outbox_age;
-- What goes out, through us or from the owner's phone, is unique by `messages_outbound` already.
DROP INDEX messages_once;
CREATE UNIQUE INDEX messages_once ON messages (session_id, chat, sender, wa_id)
    WHERE direction = 'inbound';
