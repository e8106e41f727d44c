-- The newest messages of one chat, however long the history of its session is.
CREATE INDEX messages_chat ON messages (session_id, chat, seq);
