-- +goose Up
ALTER TABLE roll ADD COLUMN containers_per_second BIGINT NOT NULL DEFAULT 0; -- rate limits, 0 for none
ALTER TABLE roll ADD COLUMN bytes_per_second      BIGINT NOT NULL DEFAULT 0;
ALTER TABLE roll ADD COLUMN retries               BIGINT NOT NULL DEFAULT 0;
ALTER TABLE roll ADD COLUMN begun                 BIGINT NOT NULL DEFAULT 0; -- when it brought the first over, 0: not yet
ALTER TABLE roll ADD COLUMN warned                BIGINT NOT NULL DEFAULT 0; -- when the log was told that it is late, 0: not yet
-- Of a roll from before it is not known whether it has brought anything over.
UPDATE roll SET begun = started;
