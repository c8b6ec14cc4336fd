-- KEYS: the windows, then the client's places in flight.
-- ARGV: what to do (take, look, adjust), windows, most places (0: none asked for),
-- lease in ms, the call's name among the places; then for each window, times in ms: amount,
-- cost, length, begins (in s), ends, floor, owed, left.
-- Returns: is admitted, is crowded, then count and time left for each window.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local act, windows, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local lease, name = tonumber(ARGV[4]), ARGV[5]
local late = 60000 -- replicas may be that late at the end of a span they named themselves
local seen, blocked = {}, false

local function write(window, count)
  if window.exists then
    redis.call('INCRBY', window.key, string.format('%.0f', count - window.count))
  else
    redis.call('SET', window.key, string.format('%.0f', count), 'PXAT',
      string.format('%.0f', window.dies))
    window.exists = true
  end
  window.count = count
end

for i = 1, windows do
  local at = 5 + (i - 1) * 8
  local window = {key = KEYS[i], amount = tonumber(ARGV[at + 1]), cost = tonumber(ARGV[at + 2])}
  local length, begins = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local ends, floor = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  local owed, left = tonumber(ARGV[at + 7]), tonumber(ARGV[at + 8])
  if begins >= 0 then
    window.dies = math.max(now, ends) + late
    window.key = window.key .. '@' .. ARGV[at + 4]
  end
  local found = redis.call('GET', window.key)
  window.exists, window.count = found and true or false, tonumber(found or 0)
  if begins == -1 then
    local lives = redis.call('PTTL', window.key)
    if lives == -1 then -- somebody took its end away
      redis.call('PEXPIRE', window.key, length)
      lives = length
    end
    if lives < 0 then lives = left > 0 and left or length end
    ends = now + lives
    window.dies = ends
  end
  window.ends = ends
  -- What a replica knows of this window and the server lost or never heard. A window that has
  -- nothing to tell must not be written: it begins with the call that is counted in it.
  local known = math.max(0, math.max(window.count, floor) + owed)
  if known ~= window.count then write(window, known) end
  if act == 'adjust' and window.exists then
    write(window, math.max(0, window.count + window.cost))
  end
  -- Not count + cost: beyond 2^53 that sum would be rounded.
  if window.cost > math.max(0, window.amount - window.count) then blocked = true end
  seen[i] = window
end

local crowded, places = false, KEYS[windows + 1]
if most > 0 then
  redis.call('ZREMRANGEBYSCORE', places, '-inf', now)
  crowded = redis.call('ZCARD', places) >= most
end

local admitted = act == 'take' and not blocked and not crowded
if admitted then
  for i = 1, windows do write(seen[i], seen[i].count + seen[i].cost) end
  if most > 0 then
    redis.call('ZADD', places, now + lease, name)
    redis.call('PEXPIRE', places, lease)
  end
end

local reply = {admitted and 1 or 0, crowded and 1 or 0}
for i = 1, windows do
  reply[#reply + 1] = seen[i].count
  reply[#reply + 1] = math.max(0, seen[i].ends - now)
end
return reply
