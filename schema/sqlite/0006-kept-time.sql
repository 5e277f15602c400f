-- An execution whose event is pruned keeps its time beside its id: a correction that waited for the fold meanwhile is held against
-- both, as it is against those of an event that is in the log.
ALTER TABLE execution ADD COLUMN event_ns INTEGER; -- NULL: as the event has it; or it was pruned before schema 6
