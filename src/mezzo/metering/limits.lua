-- The windows of one workspace and one model, asked and changed in one step: InProcessLimits of limits.py in Redis.
--
-- KEYS     the windows of requests and of tokens, each a list: its sum, then slot, amount, slot, amount, oldest first
-- ARGV     1, 2  the limits on requests and tokens; '' where there is none, and that window is not touched
--          3     tokens to charge; '' admits a request
--          4, 5  slots of a second; slots from one that still counts to the first that no longer sees it
--          6     the time in seconds; '' takes Redis' own, which is the same for all servers
-- Returns  0 if it was counted, else the seconds to wait, -1 for ever; 1 if the limit on requests refused, else 0;
--          the sums of both windows
local slots_per_s, span, now = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if not now then
  local time = redis.call('TIME')
  now = time[1] + time[2] / 1000000
end
local slot = math.floor(now * slots_per_s)
local windows = {
  { key = KEYS[1], limit = tonumber(ARGV[1]), sum = 0 },
  { key = KEYS[2], limit = tonumber(ARGV[2]), sum = 0 },
}
local requests, tokens = windows[1], windows[2]

-- The clock of a machine can be set back. By less than a window: time stands still until it is where it was. By more:
-- nobody waits an hour for that, the window begins anew.
local function keep_time(window)
  window.newest = redis.call('LRANGE', window.key, -2, -1)
  local newest_slot = window.newest[2] and tonumber(window.newest[1]) or slot
  if newest_slot - slot >= span then
    redis.call('DEL', window.key)
    window.newest = {}
  else
    slot = math.max(slot, newest_slot)
  end
end

local function forget(window)
  local head = redis.call('LRANGE', window.key, 0, 2)
  local sum = tonumber(head[1] or 0)
  while head[2] and tonumber(head[2]) <= slot - span do
    -- Of [sum, slot, amount, ...] remains [amount, ...], and the new sum takes the place of the amount.
    sum = sum - head[3]
    redis.call('LTRIM', window.key, 2, -1)
    redis.call('LSET', window.key, 0, sum)
    head = redis.call('LRANGE', window.key, 0, 2)
  end
  window.sum = sum
end

local function add(window, amount)
  local slot_before, amount_before = window.newest[1], window.newest[2]
  if amount_before and tonumber(slot_before) == slot then
    redis.call('LSET', window.key, -1, amount_before + amount)
  elseif slot_before then
    redis.call('RPUSH', window.key, slot, amount)
  else
    redis.call('RPUSH', window.key, 0, slot, amount)
  end
  window.sum = window.sum + amount
  redis.call('LSET', window.key, 0, window.sum)
  -- One slot longer than it counts.
  redis.call('PEXPIRE', window.key, (span + 1) * 1000 / slots_per_s)
end

-- The first slot in which the sum is under the limit.
local function free_at(window)
  local sum, index = window.sum, 1
  if not window.limit or sum < window.limit then
    return -math.huge
  end
  while true do
    local entries = redis.call('LRANGE', window.key, index, index + 31)
    for i = 1, #entries, 2 do
      sum = sum - entries[i + 1]
      if sum < window.limit then
        return entries[i] + span
      end
    end
    if #entries == 0 then
      return math.huge
    end
    index = index + 32
  end
end

for _, window in ipairs(windows) do
  if window.limit then
    keep_time(window)
  end
end
for _, window in ipairs(windows) do
  if window.limit then
    forget(window)
  end
end

if ARGV[3] ~= '' then
  if tokens.limit and tonumber(ARGV[3]) > 0 then
    add(tokens, tonumber(ARGV[3]))
  end
  return { 0, 0, requests.sum, tokens.sum }
end

local requests_free_at = free_at(requests)
local free_slot = math.max(requests_free_at, free_at(tokens))
if free_slot > slot then
  local wait_s = -1
  if free_slot < math.huge then
    wait_s = math.max(1, math.ceil(free_slot / slots_per_s - now))
  end
  return { wait_s, requests_free_at > slot and 1 or 0, requests.sum, tokens.sum }
end
if requests.limit then
  add(requests, 1)
end
return { 0, 0, requests.sum, tokens.sum }
