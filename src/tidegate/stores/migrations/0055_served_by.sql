-- Where an answer came from: the route's first model, a fallback, the cache, a kept answer whose time
-- was over, or the route's fixed text. Null for older receipts and where there was no answer.
ALTER TABLE receipts ADD COLUMN served_by text;
