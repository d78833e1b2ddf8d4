-- +goose Up
CREATE TABLE roll (
  id       BIGINT PRIMARY KEY,
  tenant   BIGINT NOT NULL,
  policy   BIGINT NOT NULL,
  target   BIGINT NOT NULL, -- policy key that the containers are brought to
  source   BIGINT NOT NULL, -- policy whose containers come too, 0 for none
  classes  TEXT   NOT NULL, -- of key pages that it moves, separated by spaces
  revision TEXT   NOT NULL,
  depth    TEXT   NOT NULL,
  state    TEXT   NOT NULL,
  total    BIGINT NOT NULL,
  started  BIGINT NOT NULL,
  finished BIGINT NOT NULL, -- 0 while it has not ended
  deadline BIGINT NOT NULL,
  message  TEXT   NOT NULL
);
CREATE INDEX roll_state ON roll (state, id);
CREATE INDEX roll_policy ON roll (tenant, policy, id);
