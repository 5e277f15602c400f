-- What the ledger still needs of an event that is pruned. (Of those that were pruned before schema 6 it is not known.)

-- Beside its id, the time of the report that counts about an execution: a correction that waited for the fold meanwhile is held
-- against both.
ALTER TABLE execution ADD COLUMN event_ns INTEGER; -- NULL: as the event has it

-- The ids of those in loose_event: they decide which of several at one instant comes first.
CREATE TABLE loose_id (
    seq INTEGER PRIMARY KEY,
    id ANY NOT NULL
) STRICT;
