# An answer at once, and one that takes its time.
class Parts
  def each
    4.times do |number|
      yield "part #{number}\n"
      sleep 1
    end
  end
end

run lambda { |env|
  body = env["PATH_INFO"] == "/slow" ? Parts.new : ["hello\n"]
  [200, { "Content-Type" => "text/plain" }, body]
}
